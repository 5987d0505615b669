#include <faiss_flash/io/sealed_file.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include <xxhash.h>

#include <faiss/impl/FaissAssert.h>

#include <faiss_flash/io/check_layout.h>

namespace faiss_flash {

namespace {

constexpr char magic[] = "FFLASH\r\n"; // text-mode copies change it
constexpr size_t magic_bytes = sizeof(magic) - 1;
constexpr uint32_t format_version = 1;
constexpr size_t checksum_offset = 24;
constexpr size_t footer_bytes = 40;
static_assert(magic_bytes == 8, "the footer has 8 bytes for the magic");

void put(unsigned char* to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        to[i] = value >> (8 * i);
    }
}

uint64_t get(const unsigned char* from, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= uint64_t(from[i]) << (8 * i);
    }
    return value;
}

/// XXH3-64 of everything added so far.
class Checksum {
   public:
    Checksum() : state_(XXH3_createState()) {
        if (!state_) {
            throw std::bad_alloc();
        }
        XXH3_64bits_reset(state_);
    }
    ~Checksum() {
        XXH3_freeState(state_);
    }
    Checksum(const Checksum&) = delete;
    Checksum& operator=(const Checksum&) = delete;

    void add(const void* ptr, size_t bytes) {
        XXH3_64bits_update(state_, ptr, bytes);
    }
    uint64_t value() const {
        return XXH3_64bits_digest(state_);
    }

   private:
    XXH3_state_t* state_;
};

std::string folder_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "."
            : slash == 0              ? "/"
                                      : path.substr(0, slash);
}

/// Where the file is that `path` leads to.
std::string follow_links(const std::string& path) {
    char* real = realpath(path.c_str(), nullptr);
    std::string followed = real ? real : path;
    free(real);
    return followed;
}

} // namespace

/*************************************************************
 * Writing
 *************************************************************/

struct SealedWriter::Hash : Checksum {};

SealedWriter::SealedWriter(const std::string& path)
        : path_(follow_links(path)),
          hash_(std::make_unique<Hash>()) {
    name = path;
    struct stat status;
    if (stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
        FAISS_THROW_FMT(
                "cannot write %s: it is not a regular file", path.c_str());
    }
    static std::atomic<unsigned> number{0};
    temporary_ = path_ + ".tmp." + std::to_string(getpid()) + "." +
            std::to_string(number++);
    const int fd = open(
            temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        const int error = errno;
        temporary_.clear();
        fail("create a file in its folder", error);
    }
    file_ = fdopen(fd, "w+b");
    if (!file_) {
        const int error = errno;
        close(fd);
        unlink(temporary_.c_str());
        temporary_.clear();
        fail("open a stream", error);
    }
}

SealedWriter::~SealedWriter() noexcept(false) {
    if (file_) {
        fclose(file_);
    }
    if (!temporary_.empty()) {
        unlink(temporary_.c_str());
    }
}

void SealedWriter::fail(const char* what, int error) const {
    FAISS_THROW_FMT(
            "cannot write %s: cannot %s: %s",
            name.c_str(),
            what,
            strerror(error));
}

void SealedWriter::write(const void* ptr, size_t bytes) {
    if (bytes > 0 && fwrite(ptr, 1, bytes, file_) != bytes) {
        fail("write", errno);
    }
    hash_->add(ptr, bytes);
    bytes_ += bytes;
}

size_t SealedWriter::operator()(const void* ptr, size_t size, size_t nitems) {
    write(ptr, size * nitems);
    return nitems;
}

void SealedWriter::check_faiss_part() {
    if (fflush(file_) != 0) {
        fail("write", errno);
    }
    check_layout(file_, bytes_);
    if (fseeko(file_, bytes_, SEEK_SET) != 0) {
        fail("write", errno);
    }
}

void SealedWriter::commit(const std::string& payload) {
    unsigned char footer[footer_bytes] = {};
    put(footer, bytes_, 8);
    put(footer + 8, payload.size(), 8);
    put(footer + 16, format_version, 4);
    write(payload.data(), payload.size());
    write(footer, checksum_offset);
    put(footer + checksum_offset, hash_->value(), 8);
    memcpy(footer + footer_bytes - magic_bytes, magic, magic_bytes);
    write(footer + checksum_offset, footer_bytes - checksum_offset);

    if (fflush(file_) != 0 || fsync(::fileno(file_)) != 0) {
        fail("flush it to disk", errno);
    }
    const int closed = fclose(file_);
    file_ = nullptr;
    if (closed != 0) {
        fail("close it", errno);
    }
    if (rename(temporary_.c_str(), path_.c_str()) != 0) {
        fail("rename the finished file", errno);
    }
    temporary_.clear();
    // the rename itself: the data are safe already, and there are file
    // systems whose folders cannot be flushed
    const int folder =
            open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        fsync(folder);
        close(folder);
    }
}

/*************************************************************
 * Reading
 *************************************************************/

SealedReader::SealedReader(const std::string& path) {
    name = path;
    file_ = fopen(path.c_str(), "rb");
    if (!file_) {
        fail(strerror(errno));
    }
    try {
        verify();
    } catch (...) {
        fclose(file_);
        throw;
    }
}

SealedReader::~SealedReader() {
    fclose(file_);
}

void SealedReader::fail(const std::string& what) const {
    FAISS_THROW_FMT("cannot read %s: %s", name.c_str(), what.c_str());
}

void SealedReader::read(void* ptr, size_t bytes) {
    if (fread(ptr, 1, bytes, file_) != bytes) {
        fail(ferror(file_) ? strerror(errno) : "it became shorter");
    }
}

void SealedReader::verify() {
    struct stat status;
    if (fstat(::fileno(file_), &status) != 0) {
        fail(strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        fail("it is not a regular file");
    }
    const uint64_t size = status.st_size;
    unsigned char footer[footer_bytes];
    const char* foreign =
            "it does not end as a faiss_flash index does: truncated, or "
            "written by faiss::write_index";
    if (size < footer_bytes) {
        fail(foreign);
    }
    if (fseeko(file_, size - footer_bytes, SEEK_SET) != 0) {
        fail(strerror(errno));
    }
    read(footer, footer_bytes);
    if (memcmp(footer + footer_bytes - magic_bytes, magic, magic_bytes) != 0) {
        fail(foreign);
    }
    const uint32_t version = get(footer + 16, 4);
    if (version > format_version) {
        fail("its format is version " + std::to_string(version) +
             ", newer than this library's " + std::to_string(format_version));
    }
    const uint64_t stock_bytes = get(footer, 8);
    const uint64_t payload_bytes = get(footer + 8, 8);
    // no sum, which could overflow
    if (version == 0 || stock_bytes > size - footer_bytes ||
        payload_bytes != size - footer_bytes - stock_bytes) {
        fail("its footer is damaged");
    }

    Checksum checksum;
    rewind(file_);
    std::vector<unsigned char> buffer(1 << 20);
    uint64_t left = size - (footer_bytes - checksum_offset);
    while (left > 0) {
        const size_t bytes = std::min<uint64_t>(left, buffer.size());
        read(buffer.data(), bytes);
        checksum.add(buffer.data(), bytes);
        left -= bytes;
    }
    if (checksum.value() != get(footer + checksum_offset, 8)) {
        fail("it is damaged (its checksum does not match)");
    }

    payload_.resize(payload_bytes);
    if (fseeko(file_, stock_bytes, SEEK_SET) != 0) {
        fail(strerror(errno));
    }
    read(&payload_[0], payload_bytes);
    rewind(file_);
    left_ = faiss_bytes_ = stock_bytes;
}

void SealedReader::check_faiss_part() {
    check_layout(file_, faiss_bytes_);
    rewind(file_);
    left_ = faiss_bytes_;
}

size_t SealedReader::operator()(void* ptr, size_t size, size_t nitems) {
    if (size == 0) {
        return nitems;
    }
    const size_t whole = std::min<uint64_t>(nitems, left_ / size);
    const size_t got = fread(ptr, size, whole, file_);
    left_ -= got * size;
    return got;
}

} // namespace faiss_flash
