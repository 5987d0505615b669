#pragma once

// What a thread block knows of its tile: its rows, and the pairs of a row and
// one of its components; and rows on their way to shared memory.

#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/tiles.cuh>
#include <faiss_flash/cuda/ptx/tma.cuh>

namespace faiss_flash {
namespace tiles {

constexpr int row_lanes = 4; ///< threads of a row
constexpr int threads = tile_rows * row_lanes;
constexpr int warps = threads / 32;
constexpr int row_words = tile_rows / 32; ///< one bit a row
/// Whether rows are copied to shared memory by its copy engine.
#if __CUDA_ARCH__ >= 900
constexpr bool bulk_copies = true;
#else
constexpr bool bulk_copies = false;
#endif
static_assert(tile_rows == 128, "four rows a lane in place_rows()");

/// How many pairs come before a component, and how many vectors of the
/// components that have several: one number, so that one scan gives both.
struct ComponentPlace {
    static constexpr int bits = 16;
    uint32_t packed;

    __device__ static ComponentPlace of(int pairs) {
        return {pairs | uint32_t(pairs > 1) << bits};
    }
    __device__ int pair() const {
        return packed & ((1 << bits) - 1);
    }
    __device__ int vector() const {
        return packed >> bits;
    }
};
static_assert(tile_pairs < 1 << ComponentPlace::bits);

/// Pairs of a tile at most, so that two thread blocks share a multiprocessor;
/// `chunks` of 32 columns of its rows are staged.
constexpr int most_pairs_of(int chunks) {
    return chunks == 4 ? 1280 : chunks == 3 ? 1728 : tile_pairs;
}

/// What is known of a pair, one after the other.
struct alignas(16) Pair {
    union {
        double value; ///< log p(x, k)
        struct {      // at last
            /// of the row: where it is staged, or as TileItem::at, in floats
            /// or fours of them
            uint32_t offset;
            float energy; ///< r w ‖x − μ‖²
        };
    };
    float share; ///< of the row's best component; at last r w
    float dist;  ///< ‖x − μ‖²
};

/** Pairs as they are found, row after row; then component after component,
 * of each by row.
 *
 * After this: the rows, if they are staged; of each word of masks the bits
 * that some row has (uint32_t), and how many come before it (uint16_t).
 */
template <int most_pairs>
struct alignas(16) SharedOf {
    union {
        struct {
            uint32_t rows_of[most_pairs][row_words]; ///< of a component
            uint32_t found[most_pairs]; ///< MaskBit; its rank in the tile
            uint8_t found_row[most_pairs];
        };
        Pair pair[most_pairs]; ///< when they have their places
    };
    uint32_t id[most_pairs];        ///< number of a component of the tile
    uint32_t place[most_pairs + 1]; ///< ComponentPlace, one more at the end
    uint16_t component[most_pairs]; ///< of the tile, of a pair
    uint16_t several[most_pairs / 2]; ///< components with several pairs
    uint8_t row[most_pairs];          ///< of a pair
    // of a row:
    uint32_t rows[tile_rows]; ///< number
    uint16_t first_pair[tile_rows + 1];
    uint8_t count[tile_rows]; ///< of pairs; 0: it is wide
    float threshold[tile_rows];
    int top[tile_rows];         ///< ordered(), largest value − threshold
    uint32_t best[tile_rows];   ///< its component
    uint32_t sum[tile_rows];    ///< of shares, in units of 1 / share_one
    uint32_t near[tile_rows];   ///< see MaskOutput
    uint32_t listed[tile_rows]; ///< number of shares
    uint32_t lost[tile_rows];   ///< shares left out, of 1 / lost_one
    float least[tile_rows];     ///< share that is kept
    float scale[tile_rows];     ///< of shares, to r w
    uint32_t scan[warps];
    uint32_t kept, components;
    uint32_t first_item, first_vector;
    uint64_t staged; ///< mbarrier

    static constexpr int most = most_pairs;

    __device__ ComponentPlace place_of(int c) const {
        return {place[c]};
    }
    __device__ int pairs() const {
        return first_pair[tile_rows];
    }
};

/// What a thread block has in shared memory.
template <int chunks>
struct Parts {
    using Shared = SharedOf<most_pairs_of(chunks)>;
    /// Floats of a staged row, 0 beyond its end; nothing is staged if 0.
    static constexpr int stride = 32 * chunks;
    float* staged;    ///< (tile_rows, stride)
    uint32_t* some;   ///< (words)
    uint16_t* before; ///< (words)

    __device__ static Parts of(Shared& s, int words) {
        float* staged = reinterpret_cast<float*>(&s + 1);
        uint32_t* some =
                reinterpret_cast<uint32_t*>(staged + tile_rows * stride);
        return {staged, some, reinterpret_cast<uint16_t*>(some + words)};
    }
    static int bytes(int words) {
        return sizeof(Shared) + tile_rows * stride * sizeof(float) +
                words * (sizeof(uint32_t) + sizeof(uint16_t));
    }
};

/// Inclusive sum over a warp.
__device__ inline uint32_t warp_scan(uint32_t value) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(0xffffffff, value, step);
        value += lane >= step ? other : 0;
    }
    return value;
}

/// Rows on their way to shared memory, zeros behind them. All threads.
template <bool aligned, int chunks, class Shared>
__device__ __forceinline__ void stage_rows(
        Shared& s,
        const MixtureRowsInput& in,
        int rows,
        float* staged) {
    constexpr int stride = Parts<chunks>::stride;
    if constexpr (aligned && bulk_copies) {
        if (threadIdx.x == 0) {
            ptx::mbarrier_arrive_expect(
                    &s.staged, rows * in.d * sizeof(float));
        }
        if (threadIdx.x < rows) {
            ptx::bulk_load(
                    staged + threadIdx.x * stride,
                    in.x + (int64_t)s.rows[threadIdx.x] * in.d,
                    in.d * sizeof(float),
                    &s.staged);
        }
        if (in.d < stride) {
            const int beyond = stride - in.d;
            for (int i = threadIdx.x; i < rows * beyond; i += threads) {
                staged[i / beyond * stride + in.d + i % beyond] = 0;
            }
        }
    } else {
        for (int i = threadIdx.x; i < rows * stride; i += threads) {
            const int r = i / stride, j = i % stride;
            staged[i] = j < in.d ? in.x[(int64_t)s.rows[r] * in.d + j] : 0;
        }
    }
}

/// Before a barrier, after which all threads see all rows.
template <bool aligned, class Shared>
__device__ __forceinline__ void wait_for_rows(Shared& s) {
    if constexpr (aligned && bulk_copies) {
        ptx::mbarrier_wait(&s.staged, 0);
    }
}

/// fn(pair) for the thread's pairs.
template <class Fn, class Shared>
__device__ __forceinline__ void for_each_pair(const Shared& s, Fn&& fn) {
    const int all = s.pairs();
#pragma unroll 1
    for (int p = threadIdx.x; p < all; p += threads) {
        fn(p);
    }
}

} // namespace tiles
} // namespace faiss_flash
