#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include <faiss/impl/io.h>

namespace faiss_flash {

/* A sealed file is a FAISS file with a trailer, so that FAISS, which reads
 * as far as its own data goes, opens it as well:
 *
 *   FAISS's bytes | payload (JSON) | footer (40 bytes, little endian)
 *
 * The footer:
 *   offset  0  uint64  bytes of FAISS's part
 *           8  uint64  bytes of the payload
 *          16  uint32  version of the format
 *          20  uint32  0
 *          24  uint64  XXH3-64 of everything before this field
 *          32  8 bytes magic
 */

/** Writes one sealed file, whole or not at all: to a temporary file in the
 * same folder, which is flushed to disk and renamed by commit(). Without
 * commit() the destructor removes it; a process killed on the way leaves the
 * temporary file (PATH.tmp.PID.NUMBER) and PATH as it was.
 */
class SealedWriter : public faiss::IOWriter {
   public:
    /// Throws a FaissException naming the file. A symbolic link is followed.
    explicit SealedWriter(const std::string& path);
    ~SealedWriter() noexcept(false) override;

    SealedWriter(const SealedWriter&) = delete;
    SealedWriter& operator=(const SealedWriter&) = delete;

    /// Append FAISS's part: what fwrite does.
    size_t operator()(const void* ptr, size_t size, size_t nitems) override;

    /// Throws unless check_layout() lets through what was appended so far.
    void check_faiss_part();

    /// Append payload and footer, flush, rename.
    void commit(const std::string& payload);

   private:
    void write(const void* ptr, size_t bytes);
    [[noreturn]] void fail(const char* what, int error) const;

    std::string path_, temporary_;
    std::FILE* file_ = nullptr;
    struct Hash;
    std::unique_ptr<Hash> hash_;
    uint64_t bytes_ = 0;
};

/** Reads one sealed file. The constructor checks magic, version, lengths and
 * the checksum over the whole file; after that FAISS's part can be read.
 */
class SealedReader : public faiss::IOReader {
   public:
    /// Throws a FaissException naming the file.
    explicit SealedReader(const std::string& path);
    ~SealedReader() override;

    SealedReader(const SealedReader&) = delete;
    SealedReader& operator=(const SealedReader&) = delete;

    /// Throws unless check_layout() lets FAISS's part through.
    void check_faiss_part();

    uint64_t faiss_bytes() const {
        return faiss_bytes_;
    }

    /// Read on in FAISS's part: what fread does; nothing beyond its end.
    size_t operator()(void* ptr, size_t size, size_t nitems) override;

    const std::string& payload() const {
        return payload_;
    }
    /// Whether FAISS's part has been read to its end.
    bool at_end() const {
        return left_ == 0;
    }

   private:
    void read(void* ptr, size_t bytes);
    void verify();
    [[noreturn]] void fail(const std::string& what) const;

    std::FILE* file_ = nullptr;
    std::string payload_;
    uint64_t faiss_bytes_ = 0;
    uint64_t left_ = 0; // bytes of FAISS's part not read yet
};

} // namespace faiss_flash
