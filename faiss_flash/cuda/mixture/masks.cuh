#pragma once

// Which components can matter to each row, one bit for each of them: what the
// listing kernels write for soft passes.

#include <faiss_flash/cuda/mixture/list.cuh>

namespace faiss_flash {

constexpr int mask_tile_words = assign_columns / 32; ///< per tile of columns

/** Where a component's bit is. A thread's 32 columns of a tile of 128 make one
 * word. Two bits are what a listing kernel has of every score at first, so
 * the first 16 columns have the even bits, from above, the others the odd
 * ones.
 */
struct MaskBit {
    int word, bit;

    __host__ __device__ static MaskBit of(int component) {
        const int within = component % assign_columns;
        const int i = within / 8 * 2 + within % 2;
        return {component / assign_columns * mask_tile_words + within % 8 / 2,
                30 - 2 * (i % 16) + i / 16};
    }
    __host__ __device__ int component() const {
        const int i = (31 - bit) / 2 + bit % 2 * 16;
        return word / mask_tile_words * assign_columns +
                word % mask_tile_words * 2 + i / 2 * 8 + i % 2;
    }
};

/// How far below the threshold (in nats) a component counts as near.
constexpr float mask_fall = 6;

/// The range of masks for components within `range`: tails vouch for the rest.
/// A smaller one would list fewer components, and find more rows whose tail is
/// too heavy.
__host__ __device__ inline float mask_range(float range) {
    return range - 4;
}

/** Bits of the components whose score reached the row's threshold t, and how
 * many others are near: densities that are not listed add up to at most
 * e^t (near + k e^−fall).
 */
struct MaskOutput {
    uint32_t* masks = nullptr; ///< (n, words)
    uint32_t* near = nullptr;  ///< (n)
    int words = 0;             ///< k_padded / 32
};

/// A row's side of a comparison: scores on a scale on which two bits tell
/// whether they are listed, near or neither.
struct MaskScale {
    static constexpr float scale = 2 / mask_fall;
    float offset;

    /// Threshold t at 2, t − fall at 0; lower by what rounding may do.
    __device__ static MaskScale of(float threshold) {
        const float margin = 0x1p-21f * fabsf(threshold) + 0x1p-10f;
        return {2 - (threshold - margin) * scale};
    }
    /// The score's two bits, below those before: 01 listed (or NaN), 00 near,
    /// 10 or 11 neither. They are the sign and the upper bit of the exponent.
    __device__ __forceinline__ uint32_t
    push(uint32_t bits, float score) const {
        return __funnelshift_l(
                __float_as_uint(fmaf(score, scale, offset)), bits, 2);
    }
    /// Of 16 scores, at even bits.
    __device__ static uint32_t listed(uint32_t bits) {
        return bits & ~(bits >> 1) & 0x55555555;
    }
    __device__ static uint32_t near(uint32_t bits) {
        return ~bits & ~(bits >> 1) & 0x55555555;
    }
};

/// The same for reading: nothing is set beyond k.
struct MaskView {
    const uint32_t* masks; ///< (n, words)
    const uint32_t* near;  ///< (n)
    int words;
    uint4 last; ///< which bits of the last tile's words exist

    static MaskView of(const MaskOutput& from, int k) {
        uint32_t last[mask_tile_words] = {};
        for (int c = (k - 1) / assign_columns * assign_columns; c < k; c++) {
            const MaskBit at = MaskBit::of(c);
            last[at.word % mask_tile_words] |= 1u << at.bit;
        }
        return {from.masks,
                from.near,
                from.words,
                make_uint4(last[0], last[1], last[2], last[3])};
    }
    __host__ __device__ int tiles() const {
        return words / mask_tile_words;
    }
    /// What a row does not list, in units of e^threshold.
    /// @param others  components that it does not list, near ones included
    __device__ static float tail(uint32_t near, int others) {
        return near + others * expf(-mask_fall);
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
