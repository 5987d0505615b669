#pragma once

// Which components can matter to each row, one bit for each of them: what the
// listing kernels write for soft passes.

#include <faiss_flash/cuda/mixture/list.cuh>

namespace faiss_flash {

constexpr int mask_tile_words = assign_columns / 32; ///< per tile of columns

/** Where a component's bit is. Words and bits are in the order in which the
 * threads of a listing kernel see columns: a thread's 32 of a tile of 128
 * make one word, the first of them its highest bit.
 */
struct MaskBit {
    int word, bit;

    __host__ __device__ static MaskBit of(int component) {
        const int within = component % assign_columns;
        return {component / assign_columns * mask_tile_words + within % 8 / 2,
                31 - (within / 8 * 2 + within % 2)};
    }
    __host__ __device__ int component() const {
        return word / mask_tile_words * assign_columns +
                word % mask_tile_words * 2 + columns_past(31 - bit);
    }
    /// Of a word's i-th bit from above, past its first.
    __host__ __device__ static int columns_past(int i) {
        return i / 2 * 8 + i % 2;
    }
};

/// Bits of the components whose score reached the row's threshold.
struct MaskOutput {
    uint32_t* masks = nullptr; ///< (n, words)
    int words = 0;             ///< k_padded / 32
};

/// The same for reading: nothing is set beyond k.
struct MaskView {
    const uint32_t* masks; ///< (n, words)
    int words;
    uint4 last; ///< which bits of the last tile's words exist

    static MaskView of(const MaskOutput& from, int k) {
        uint32_t last[mask_tile_words] = {};
        for (int c = (k - 1) / assign_columns * assign_columns; c < k; c++) {
            const MaskBit at = MaskBit::of(c);
            last[at.word % mask_tile_words] |= 1u << at.bit;
        }
        return {from.masks,
                from.words,
                make_uint4(last[0], last[1], last[2], last[3])};
    }
    __host__ __device__ int tiles() const {
        return words / mask_tile_words;
    }
    /// The words of a tile of columns.
    __device__ uint4 load_tile(int64_t row, int tile) const {
        uint4 m = __ldg(
                reinterpret_cast<const uint4*>(masks) + row * tiles() + tile);
        if (tile == tiles() - 1) {
            m.x &= last.x, m.y &= last.y, m.z &= last.z, m.w &= last.w;
        }
        return m;
    }
    /// Also past the last word: nothing is set there.
    __device__ uint32_t load(int64_t row, int word) const {
        const uint32_t m = word < words ? __ldg(masks + row * words + word) : 0;
        // no array: an index that is not constant would move it to memory
        const int i = word % mask_tile_words;
        const uint32_t real = i < 2 ? (i < 1 ? last.x : last.y)
                                    : (i < 3 ? last.z : last.w);
        return word < words - mask_tile_words ? m : m & real;
    }
};

/// Bits below `bit`.
__device__ inline uint32_t bits_below(int bit) {
    return (1u << bit) - 1;
}

} // namespace faiss_flash
