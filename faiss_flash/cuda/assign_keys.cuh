#pragma once

// The running two smallest scores of a row, carried through the epilogue of
// the assignment kernels.

#include <cstdint>

namespace faiss_flash {

/// A key is the bits of a positive float, moved up by five places, with the
/// column (within the thread's own columns of a tile) below them: one integer
/// minimum carries score and column, and no bit of the score is lost. The
/// five bits that fall off the top are the same for all scores in
/// [2¹⁷, 2²⁵), which is where ScoreTerms puts them.
constexpr int key_column_bits = 5;
constexpr uint32_t key_column_mask = (1u << key_column_bits) - 1;
constexpr uint32_t key_top_bits = 0x48000000; ///< of floats in [2¹⁷, 2²⁵)

/// Keys from here on are no centroid's: +inf, as padding has it, ends up
/// above.
constexpr uint32_t key_none = 0x80000000;

/// `factor` is 2⁵ as a kernel argument: the compiler then multiplies and
/// adds in one operation of the otherwise idle FMA pipe; a constant becomes a
/// shift on the ALU, which the minima need.
__device__ inline uint32_t make_key(float score, int column, uint32_t factor) {
    return __float_as_uint(score) * factor + column;
}

__device__ inline float key_score(uint32_t key) {
    return __uint_as_float(key >> key_column_bits | key_top_bits);
}

struct Top2 {
    uint32_t best = 0xffffffff;   ///< smallest key
    uint32_t second = 0xffffffff; ///< next
    int tile = 0;                 ///< tile the best came from

    /// Four two-input and one three-input minima for two keys.
    __device__ void add(uint32_t a, uint32_t b) {
        const uint32_t low = min(a, b);
        const uint32_t high = max(a, b);
        const uint32_t middle = max(best, low);
        best = min(best, low);
        second = min(second, min(high, middle));
    }
};

} // namespace faiss_flash
