#pragma once

// The running two smallest scores of a row, carried through the epilogue of
// the assignment kernels.

#include <cstdint>

namespace faiss_flash {

/// A key is a non-negative score with its low bits replaced by the column
/// within the thread's own columns of a tile, so that one integer minimum
/// carries score and column. Scores closer than the bits dropped are
/// re-checked anyway (see recheck.cu and README.md).
constexpr uint32_t key_column_bits = 5;
constexpr uint32_t key_column_mask = (1u << key_column_bits) - 1;

/// `keep` is ~key_column_mask as a kernel argument: the compiler then needs
/// one operation, with two constants it takes two.
__device__ inline int make_key(float score, int column, uint32_t keep) {
    return int((__float_as_uint(score) & keep) | column);
}

struct Top2 {
    int best = 0x7f800000;   ///< smallest key, +inf at the start
    int second = 0x7f800000; ///< next
    int tile = 0;            ///< tile the best came from

    /// Four two-input and one three-input minima for two keys.
    __device__ void add(int a, int b) {
        const int low = min(a, b);
        const int high = max(a, b);
        const int middle = max(best, low);
        best = min(best, low);
        second = min(second, min(high, middle));
    }
};

} // namespace faiss_flash
