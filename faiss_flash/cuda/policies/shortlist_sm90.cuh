#pragma once

// The epilogue of the Hopper pipelines that keeps the best of groups.

#include <faiss_flash/cuda/policies/shortlist.cuh>
#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {
namespace sm90 {

/// Four keys; sorting and merging are networks of minima and maxima.
struct FourKeys {
    uint32_t key[4];

    __device__ __forceinline__ void exchange(int a, int b) {
        const uint32_t low = min(key[a], key[b]);
        key[b] = max(key[a], key[b]);
        key[a] = low;
    }
    __device__ __forceinline__ void sort() {
        exchange(0, 1);
        exchange(2, 3);
        exchange(0, 2);
        exchange(1, 3);
        exchange(1, 2);
    }
    __device__ __forceinline__ void sort_bitonic() {
        exchange(0, 2);
        exchange(1, 3);
        exchange(0, 1);
        exchange(2, 3);
    }
    /// The smallest four of both, both in order.
    __device__ __forceinline__ void keep(const FourKeys& other) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            key[i] = min(key[i], other.key[3 - i]);
        }
        sort_bitonic();
    }
    /// The same, not in order. Nothing that either ever left out is below
    /// `bound` then.
    __device__ __forceinline__ void keep(
            const FourKeys& other,
            uint32_t& bound) {
        bound = min(bound, min(key[3], other.key[3]));
        uint32_t left[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            left[i] = max(key[i], other.key[3 - i]);
            key[i] = min(key[i], other.key[3 - i]);
        }
        bound = min(bound, min(left[0], left[1]));
        bound = min(bound, min(left[2], left[3]));
    }
};

/// The best four of each group, for a thread's two rows of 64.
struct ThreadShortlist {
    using Input = ShortlistInput;
    using Output = ShortlistOutput;
    using Columns = float2; ///< alpha
    static constexpr bool columns_travel = true;
    __host__ __device__ static PassShape shape(const ShortlistInput& in) {
        return {in.rows.n, in.rows.d_padded, in.k_padded, in.alpha};
    }
    FourKeys kept[2]; ///< of the group so far
    uint32_t bound[2];
    float beta;
    int64_t first; ///< the thread's first row

    __device__ void start(const ShortlistInput& in, int64_t first_row) {
        first = first_row + row_of_thread();
        beta = in.terms->beta;
        bound[0] = bound[1] = 0xffffffff;
    }

    template <class Load>
    __device__ __forceinline__ void add(
            const ShortlistInput& in,
            const ShortlistOutput& out,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        FourKeys half[2][2]; // of the tile, and row
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int g = 8 * h; g < 8 * h + 8; g += 2) {
                const float2 a = load(g), b = load(g + 1);
                auto key = [&](int e, float alpha, int column) {
                    return __float_as_uint(fmaf(beta, acc[e], alpha)) *
                            in.key_factor +
                            column;
                };
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int e = 4 * g + 2 * i;
                    FourKeys four = {
                            {key(e, a.x, 2 * g),
                             key(e + 1, a.y, 2 * g + 1),
                             key(e + 4, b.x, 2 * g + 2),
                             key(e + 5, b.y, 2 * g + 3)}};
                    four.sort();
                    if (g == 8 * h) {
                        half[h][i] = four;
                    } else {
                        half[h][i].keep(four);
                    }
                }
            }
        }
        const int tiles = 1 << in.groups.log_tiles;
        const int within = tile & (tiles - 1);
        const bool last = within == tiles - 1 ||
                tile == in.k_padded / assign_columns - 1;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            FourKeys& best = half[0][i];
            best.keep(half[1][i], bound[i]);
            if (tiles > 1) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    best.key[j] += 32 * within;
                }
                best.sort_bitonic();
                if (within > 0) {
                    kept[i].keep(best, bound[i]);
                    kept[i].sort_bitonic();
                } else {
                    kept[i] = best;
                }
                best = kept[i];
            }
            const int64_t row = first + 8 * i;
            if (last && row < in.rows.n) {
                const int group = (tile >> in.groups.log_tiles) * 4 +
                        threadIdx.x % 4;
                reinterpret_cast<uint4*>(
                        out.keys)[row * in.groups.count() + group] =
                        make_uint4(
                                best.key[0],
                                best.key[1],
                                best.key[2],
                                best.key[3]);
            }
        }
    }

    __device__ void finish(
            const ShortlistInput& in,
            const ShortlistOutput& out) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t least = bound[i];
            least = min(least, __shfl_xor_sync(0xffffffff, least, 1));
            least = min(least, __shfl_xor_sync(0xffffffff, least, 2));
            const int64_t row = first + 8 * i;
            if (threadIdx.x % 4 == 0 && row < in.rows.n) {
                out.bounds[row] = least;
            }
        }
    }
};

} // namespace sm90
} // namespace faiss_flash
