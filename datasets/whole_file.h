#pragma once

#include <string>

namespace faiss_flash {

/// A file that appears under its name complete or not at all: it is written
/// under a temporary name in the same folder, which commit() flushes to disk
/// and renames. Without commit() the destructor removes it.
class WholeFile {
   public:
    /// Creates the temporary file, empty. Throws faiss::FaissException if
    /// the folder is missing or cannot be written.
    explicit WholeFile(const std::string& path);
    ~WholeFile();
    WholeFile(const WholeFile&) = delete;
    WholeFile& operator=(const WholeFile&) = delete;

    /// Where to write before commit().
    const std::string& temporary() const {
        return temporary_;
    }

    /// Appends to the temporary file. Throws naming the file if the disk is
    /// full or fails.
    void write(const void* data, size_t bytes);

    /// Replaces whatever had the name before.
    void commit();

   private:
    std::string path_, temporary_;
    int fd_ = -1;
    bool committed_ = false;
};

} // namespace faiss_flash
