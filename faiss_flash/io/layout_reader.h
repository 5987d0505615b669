#pragma once

#include <algorithm>
#include <cctype>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// A number on its way to FAISS_THROW_FMT.
inline unsigned long long ull(uint64_t value) {
    return value;
}

/** The bytes of FAISS's part of a file, for check_layout(): everything throws
 * before it would read beyond their end.
 */
class LayoutReader {
   public:
    /// @param bytes  of the part, from the file's beginning
    LayoutReader(std::FILE* file, uint64_t bytes)
            : file_(file),
              bytes_(bytes),
              left_(bytes) {
        rewind(file_);
    }

    uint64_t bytes() const {
        return bytes_;
    }
    uint64_t left() const {
        return left_;
    }

    void get_bytes(void* to, size_t bytes) {
        FAISS_THROW_IF_NOT_MSG(
                bytes <= left_ && fread(to, 1, bytes, file_) == bytes,
                "it ends in the middle of an index");
        left_ -= bytes;
    }

    template <class T>
    T get() {
        T value;
        get_bytes(&value, sizeof(T));
        return value;
    }

    /// Any other byte in a bool is undefined behaviour.
    bool get_bool(const char* field) {
        const auto value = get<uint8_t>();
        FAISS_THROW_IF_NOT_FMT(
                value <= 1, "%s = %d should be 0 or 1", field, value);
        return value;
    }

    void skip(uint64_t bytes) {
        FAISS_THROW_IF_NOT_MSG(
                bytes <= left_ && fseeko(file_, bytes, SEEK_CUR) == 0,
                "it ends in the middle of an index");
        left_ -= bytes;
    }

    /// The size of a vector whose elements the file holds.
    uint64_t count(const char* what, size_t element_bytes) {
        const auto n = get<uint64_t>();
        FAISS_THROW_IF_NOT_FMT(
                n <= left_ / element_bytes,
                "%s: %llu elements of %zd bytes do not fit into the %llu "
                "bytes that are left",
                what,
                ull(n),
                element_bytes,
                ull(left_));
        return n;
    }

    uint64_t vector(const char* what, size_t element_bytes) {
        const uint64_t n = count(what, element_bytes);
        skip(n * element_bytes);
        return n;
    }

    void vector(const char* what, size_t element_bytes, uint64_t expected) {
        const uint64_t n = count(what, element_bytes);
        FAISS_THROW_IF_NOT_FMT(
                n == expected,
                "%s: %llu elements should be %llu",
                what,
                ull(n),
                ull(expected));
        skip(n * element_bytes);
    }

    static bool is(uint32_t fourcc, const char* name) {
        return memcmp(&fourcc, name, 4) == 0;
    }

    [[noreturn]] static void unknown(const char* what, uint32_t fourcc) {
        char name[5] = {};
        memcpy(name, &fourcc, 4);
        for (int i = 0; i < 4; i++) {
            name[i] = isprint((unsigned char)name[i]) ? name[i] : '?';
        }
        FAISS_THROW_FMT(
                "%s '%s' is not of a kind that these files hold", what, name);
    }

   private:
    std::FILE* file_;
    const uint64_t bytes_;
    uint64_t left_;
};

inline void same_code_size(uint64_t stored, uint64_t code_size) {
    FAISS_THROW_IF_NOT_FMT(
            stored == code_size,
            "code_size = %llu should be %llu",
            ull(stored),
            ull(code_size));
}

/// What a vector transform maps from and to.
struct TransformDims {
    int in, out;
};

TransformDims check_transform_layout(LayoutReader& in);

/// Inverted lists of any kind that files may hold.
void check_lists_layout(LayoutReader& in, uint64_t nlist, size_t code_size);

} // namespace faiss_flash
