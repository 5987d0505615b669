#include <datasets/mapped_file.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace {

/// Opens and maps; the caller owns *fd also when this throws.
const uint8_t* map_file(const std::string& path, int* fd, size_t* size) {
    struct stat info;
    FAISS_THROW_IF_NOT_FMT(
            stat(path.c_str(), &info) == 0,
            "%s: cannot open: %s",
            path.c_str(),
            std::strerror(errno));
    // Before open(): opening a FIFO would wait for a writer.
    FAISS_THROW_IF_NOT_FMT(
            S_ISREG(info.st_mode), "%s: not a regular file", path.c_str());
    *fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    FAISS_THROW_IF_NOT_FMT(
            *fd >= 0,
            "%s: cannot open: %s",
            path.c_str(),
            std::strerror(errno));
    FAISS_THROW_IF_NOT_FMT(
            fstat(*fd, &info) == 0 && info.st_size > 0,
            "%s: the file is empty",
            path.c_str());
    *size = static_cast<size_t>(info.st_size);
    void* data = mmap(nullptr, *size, PROT_READ, MAP_SHARED, *fd, 0);
    FAISS_THROW_IF_NOT_FMT(
            data != MAP_FAILED,
            "%s: cannot map %zu bytes: %s",
            path.c_str(),
            *size,
            std::strerror(errno));
    return static_cast<const uint8_t*>(data);
}

} // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
    try {
        data_ = map_file(path_, &fd_, &size_);
    } catch (...) {
        if (fd_ >= 0) {
            close(fd_);
        }
        throw;
    }
}

MappedFile::~MappedFile() {
    munmap(const_cast<uint8_t*>(data_), size_);
    close(fd_);
}

const uint8_t* MappedFile::bytes(size_t offset, size_t length) const {
    struct stat info;
    const size_t now = fstat(fd_, &info) == 0 && info.st_size > 0
            ? static_cast<size_t>(info.st_size)
            : 0;
    const size_t limit = now < size_ ? now : size_;
    FAISS_THROW_IF_NOT_FMT(
            offset <= limit && length <= limit - offset,
            "%s: short read: bytes %zu to %zu wanted, the file has %zu",
            path_.c_str(),
            offset,
            offset + length,
            limit);
    return data_ + offset;
}

} // namespace faiss_flash
