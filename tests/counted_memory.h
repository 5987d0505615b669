#pragma once

// Counts what a test program allocates with new. Include in one source file of
// the program. Under ThreadSanitizer, which brings a new of its own, nothing
// is counted.

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace test {

/// bytes allocated with new and not deleted yet, and the most there were
inline std::atomic<size_t> live_bytes{0}, peak_bytes{0};
/// new throws std::bad_alloc above this; 0: no limit
inline std::atomic<size_t> most_bytes{0};

inline void* counted_new(size_t bytes) {
    // before asking for it, so that a huge size costs nothing
    const size_t most = most_bytes;
    if (most > 0 && bytes > most) {
        peak_bytes = SIZE_MAX;
        throw std::bad_alloc();
    }
    void* ptr = std::malloc(bytes > 0 ? bytes : 1);
    if (!ptr) {
        throw std::bad_alloc();
    }
    const size_t now = live_bytes += malloc_usable_size(ptr);
    size_t peak = peak_bytes;
    while (now > peak && !peak_bytes.compare_exchange_weak(peak, now)) {
    }
    return ptr;
}

inline void counted_delete(void* ptr) {
    if (ptr) {
        live_bytes -= malloc_usable_size(ptr);
        std::free(ptr);
    }
}

} // namespace test

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define FAISS_FLASH_NEW_IS_TAKEN
#endif
#endif

#ifndef FAISS_FLASH_NEW_IS_TAKEN
void* operator new(size_t bytes) {
    return test::counted_new(bytes);
}
void* operator new[](size_t bytes) {
    return test::counted_new(bytes);
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    try {
        return test::counted_new(bytes);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void* operator new[](size_t bytes, const std::nothrow_t& nothrow) noexcept {
    return operator new(bytes, nothrow);
}
void operator delete(void* ptr, const std::nothrow_t&) noexcept {
    test::counted_delete(ptr);
}
void operator delete[](void* ptr, const std::nothrow_t&) noexcept {
    test::counted_delete(ptr);
}
void operator delete(void* ptr) noexcept {
    test::counted_delete(ptr);
}
void operator delete[](void* ptr) noexcept {
    test::counted_delete(ptr);
}
void operator delete(void* ptr, size_t) noexcept {
    test::counted_delete(ptr);
}
void operator delete[](void* ptr, size_t) noexcept {
    test::counted_delete(ptr);
}
#endif
