#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace faiss_flash {

/// A regular file mapped read-only into memory.
class MappedFile {
   public:
    /// Throws faiss::FaissException: missing, not a regular file, empty,
    /// cannot be mapped.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    /// Size when the file was opened.
    size_t size() const {
        return size_;
    }

    /// The bytes [offset, offset + length). Asks the system for the file's
    /// present size first: touching mapped pages behind the end of a file
    /// that somebody has cut short would end the process, so that case is an
    /// exception instead (a cut while the caller copies is not caught).
    const uint8_t* bytes(size_t offset, size_t length) const;

   private:
    std::string path_;
    int fd_ = -1;
    size_t size_ = 0;
    const uint8_t* data_ = nullptr;
};

} // namespace faiss_flash
