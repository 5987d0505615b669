#pragma once

// What a thread block knows of its tile: its rows, and the pairs of a row and
// one of its components.

#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/row_lanes.cuh>
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

/// fn(word, bits) for each word of a row's masks that this thread, one of
/// four, looks at; whole warps.
template <class Fn>
__device__ __forceinline__ void for_each_word(
        const MaskView& masks,
        int64_t row,
        bool real,
        Fn&& fn) {
    for (int t = threadIdx.x % row_lanes; t < masks.tiles(); t += row_lanes) {
        if (real) {
            const uint4 m = masks.load_tile(row, t);
            const uint32_t words[mask_tile_words] = {m.x, m.y, m.z, m.w};
#pragma unroll
            for (int w = 0; w < mask_tile_words; w++) {
                fn(t * mask_tile_words + w, words[w]);
            }
        }
    }
    __syncwarp(); // whole warps from here
}

/// Four threads: how many components the tile's row i has; of them, those
/// that this thread sees.
template <class Shared>
__device__ __forceinline__ int count_row(
        Shared& s,
        const MaskView& masks,
        int i,
        bool real) {
    int mine = 0;
    for_each_word(masks, s.rows[i], real, [&](int, uint32_t bits) {
        mine += __popc(bits);
    });
    const int all = row_sum<row_lanes>(mine);
    if (threadIdx.x % row_lanes == 0) {
        s.count[i] = all <= row_entries ? all : 0;
    }
    return mine;
}

/// One warp: where the pairs of each row begin. Rows that come too late for
/// them are wide, and those without a threshold.
template <class Shared>
__device__ __forceinline__ void place_rows(Shared& s) {
    const int lane = threadIdx.x % 32;
    uint32_t begin[5], count[4];
    uint32_t mine = 0;
#pragma unroll
    for (int u = 0; u < 4; u++) {
        const int i = 4 * lane + u;
        count[u] = isfinite(s.threshold[i]) ? s.count[i] : 0;
        mine += count[u];
    }
    begin[0] = warp_scan(mine) - mine;
    uint32_t used = 0;
#pragma unroll
    for (int u = 0; u < 4; u++) {
        begin[u + 1] = begin[u] + count[u];
        used = begin[u + 1] <= Shared::most ? begin[u + 1] : used;
    }
    used = __reduce_max_sync(0xffffffff, used);
#pragma unroll
    for (int u = 0; u < 4; u++) {
        s.first_pair[4 * lane + u] = min(begin[u], used);
        s.count[4 * lane + u] = begin[u + 1] <= used ? count[u] : 0;
    }
    if (lane == 31) {
        s.first_pair[tile_rows] = used;
    }
}

/// Four threads: the pairs of row i.
/// @param mine  as count_row() returned it
template <class Shared>
__device__ __forceinline__ void find_pairs(
        Shared& s,
        const MaskView& masks,
        int i,
        int mine) {
    const int part = threadIdx.x % row_lanes;
    int end = mine;
#pragma unroll
    for (int step = 1; step < row_lanes; step *= 2) {
        const int other = __shfl_up_sync(0xffffffff, end, step, row_lanes);
        end += part >= step ? other : 0;
    }
    int at = s.first_pair[i] + end - mine;
    for_each_word(
            masks,
            s.rows[i],
            s.count[i] > 0 && mine > 0,
            [&](int word, uint32_t bits) {
                while (bits != 0) {
                    const int bit = 31 - __clz(bits);
                    bits ^= 1u << bit;
                    s.found[at] = word << 5 | bit;
                    s.found_row[at++] = i;
                }
            });
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

/// One warp: how many components come before each word's.
template <class Shared>
__device__ inline void rank_words(
        Shared& s,
        int words,
        const uint32_t* some,
        uint16_t* before) {
    const int lane = threadIdx.x % 32;
    uint32_t sum = 0;
    for (int w0 = 0; w0 < words; w0 += 32) {
        const int w = w0 + lane;
        const uint32_t count = w < words ? __popc(some[w]) : 0;
        const uint32_t end = warp_scan(count);
        if (w < words) {
            before[w] = sum + end - count;
        }
        sum += __shfl_sync(0xffffffff, end, 31);
    }
    if (lane == 0) {
        s.components = sum;
    }
}

/// Where each component's pairs begin. All threads; whole blocks.
template <class Shared>
__device__ __forceinline__ void place_components(Shared& s) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int all = s.components;
    uint32_t sum = 0;
    for (int c0 = 0; c0 < all; c0 += threads) {
        const int c = c0 + threadIdx.x;
        uint32_t mine = 0;
        if (c < all) {
            const uint4 rows = *reinterpret_cast<const uint4*>(s.rows_of[c]);
            mine = ComponentPlace::of(
                           __popc(rows.x) + __popc(rows.y) + __popc(rows.z) +
                           __popc(rows.w))
                           .packed;
        }
        const uint32_t end = warp_scan(mine);
        if (lane == 31) {
            s.scan[warp] = end;
        }
        __syncthreads(); // sums of warps are there
        const uint32_t ends = warp_scan(lane < warps ? s.scan[lane] : 0);
        const uint32_t before_warp = __shfl_sync(
                0xffffffff, ends, warp == 0 ? 31 : warp - 1);
        if (c < all) {
            const uint32_t place =
                    sum + (warp == 0 ? 0 : before_warp) + end - mine;
            s.place[c] = place;
            if (ComponentPlace{mine}.vector() > 0) {
                s.several[ComponentPlace{place}.vector()] = c;
            }
        }
        sum += __shfl_sync(0xffffffff, ends, warps - 1);
        if (c0 + threads < all) {
            __syncthreads(); // they have been read
        }
    }
    if (threadIdx.x == 0) {
        s.place[all] = sum;
    }
}

/// Where a pair of component c and row i belongs.
template <class Shared>
__device__ __forceinline__ int pair_place(const Shared& s, int c, int i) {
    const uint4 rows = *reinterpret_cast<const uint4*>(s.rows_of[c]);
    const uint32_t below = bits_below(i % 32);
    const int word = i / 32;
    return s.place_of(c).pair() +
            __popc(rows.x & (word > 0 ? ~0u : below)) +
            __popc(rows.y & (word > 1 ? ~0u : word == 1 ? below : 0)) +
            __popc(rows.z & (word > 2 ? ~0u : word == 2 ? below : 0)) +
            __popc(rows.w & (word == 3 ? below : 0));
}

/// Pairs by component, and then by row. All threads; whole blocks.
template <class Shared>
__device__ __forceinline__ void order_pairs(
        Shared& s,
        int words,
        uint32_t* some,
        uint16_t* before) {
    for_each_pair(s, [&](int p) {
        const uint32_t word = s.found[p] >> 5, bit = 1u << s.found[p] % 32;
        if (!(some[word] & bit)) {
            atomicOr(some + word, bit);
        }
    });
    __syncthreads(); // the tile's components are there
    if (threadIdx.x < 32) {
        rank_words(s, words, some, before);
    }
    __syncthreads(); // ranks are there
    for_each_pair(s, [&](int p) {
        const MaskBit at = {int(s.found[p] >> 5), int(s.found[p] % 32)};
        const int c = before[at.word] +
                __popc(some[at.word] & bits_below(at.bit));
        const int i = s.found_row[p];
        s.id[c] = at.component();
        s.found[p] = c;
        atomicOr(&s.rows_of[c][i / 32], 1u << i % 32);
    });
    __syncthreads(); // rows of components are there
    place_components(s);
    __syncthreads(); // components' places are there
    for_each_pair(s, [&](int p) {
        const int c = s.found[p], i = s.found_row[p];
        const int place = pair_place(s, c, i);
        s.component[place] = c;
        s.row[place] = i;
    });
}

} // namespace tiles
} // namespace faiss_flash
