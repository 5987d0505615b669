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

/// q of distances, see ShortlistTerms.
struct DistanceScores {
    using Columns = float2; ///< alpha of two columns
    static constexpr bool columns_travel = true;
    static constexpr bool groups_of_tiles = true;
    static __host__ __device__ const void* columns(const ShortlistInput& in) {
        return in.alpha;
    }
    float beta;

    __device__ void start(const ShortlistInput& in) {
        beta = in.terms->beta;
    }
    __device__ void start_tile(const ShortlistInput&, int64_t) {}
    __device__ float score(float product, const float2& c, int e, int) const {
        return fmaf(beta, product, e ? c.y : c.x);
    }
};

/// q of costs.
struct CostScores {
    using Columns = float4; ///< a, h of two columns
    static constexpr bool columns_travel = false; // no room at d = 128
    static constexpr bool groups_of_tiles = false; // no registers for them
    static __host__ __device__ const void* columns(const ShortlistInput& in) {
        return in.costs;
    }
    float norm[2];

    __device__ void start(const ShortlistInput&) {}
    /// Not kept from tile to tile: registers.
    __device__ void start_tile(const ShortlistInput& in, int64_t first) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            norm[i] = __ldg(in.rows.norm + min(first + 8 * i, in.rows.n - 1));
        }
    }
    __device__ float score(
            float product,
            const float4& c,
            int e,
            int row) const {
        const float part = fmaf(-2, product, norm[row]);
        // outside are those that are too far, and perhaps a row's best
        return fmaxf(
                e ? __saturatef(fmaf(c.w, part, c.z))
                  : __saturatef(fmaf(c.y, part, c.x)),
                0.5f);
    }
};

/// The best four of each group, for a thread's two rows of 64.
template <class Scores>
struct ThreadShortlist {
    using Input = ShortlistInput;
    using Output = ShortlistOutput;
    using Columns = typename Scores::Columns;
    static constexpr bool columns_travel = Scores::columns_travel;
    __host__ __device__ static PassShape shape(const ShortlistInput& in) {
        return {in.rows.n,
                in.rows.d_padded,
                in.k_padded,
                Scores::columns(in)};
    }
    Scores scores;
    FourKeys kept[2]; ///< of the group so far
    uint32_t bound[2];
    int64_t first; ///< the thread's first row

    __device__ void start(const ShortlistInput& in, int64_t first_row) {
        first = first_row + row_of_thread();
        scores.start(in);
        bound[0] = bound[1] = 0xffffffff;
    }

    template <class Load>
    __device__ __forceinline__ void add(
            const ShortlistInput& in,
            const ShortlistOutput& out,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        scores.start_tile(in, first);
        FourKeys half[2][2]; // of the tile, and row
#pragma unroll
        for (int g = 0; g < 16; g += 2) {
            FourKeys four[2];
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                const Columns c = load(g + j / 2);
#pragma unroll
                for (int e = 0; e < 4; e++) { // of two rows and two columns
                    const float q = scores.score(
                            acc[4 * (g + j / 2) + e], c, e % 2, e / 2);
                    four[e / 2].key[j + e % 2] =
                            __float_as_uint(q) * in.key_factor +
                            (2 * g + j + e % 2);
                }
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                four[i].sort();
                if (g % 8 == 0) {
                    half[g / 8][i] = four[i];
                } else {
                    half[g / 8][i].keep(four[i]);
                }
            }
        }
        const int log_tiles =
                Scores::groups_of_tiles ? in.groups.log_tiles : 0;
        const int tiles = 1 << log_tiles;
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
                const int group =
                        (tile >> log_tiles) * 4 + threadIdx.x % 4;
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
    }};

} // namespace sm90
} // namespace faiss_flash
