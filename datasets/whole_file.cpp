#include <datasets/whole_file.h>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

WholeFile::WholeFile(const std::string& path)
        : path_(path),
          temporary_(path + ".part." + std::to_string(getpid())),
          fd_(
                  open(temporary_.c_str(),
                       O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                       0666)) {
    FAISS_THROW_IF_NOT_FMT(
            fd_ >= 0,
            "%s: cannot write: %s",
            path_.c_str(),
            std::strerror(errno));
}

WholeFile::~WholeFile() {
    if (fd_ >= 0) {
        close(fd_);
    }
    if (!committed_) {
        unlink(temporary_.c_str());
    }
}

void WholeFile::write(const void* data, size_t bytes) {
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t done = ::write(fd_, at, bytes);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        FAISS_THROW_IF_NOT_FMT(
                done > 0,
                "%s: cannot write: %s",
                path_.c_str(),
                std::strerror(errno));
        at += done;
        bytes -= static_cast<size_t>(done);
    }
}

void WholeFile::commit() {
    FAISS_THROW_IF_NOT_FMT(
            fsync(fd_) == 0 &&
                    std::rename(temporary_.c_str(), path_.c_str()) == 0,
            "%s: cannot write: %s",
            path_.c_str(),
            std::strerror(errno));
    committed_ = true;
}

} // namespace faiss_flash
