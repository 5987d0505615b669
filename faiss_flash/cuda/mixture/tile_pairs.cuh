#pragma once

// A tile's pairs, from the masks of its rows: found row after row, ordered by
// component.

#include <faiss_flash/cuda/mixture/row_lanes.cuh>
#include <faiss_flash/cuda/mixture/tile_rows.cuh>

namespace faiss_flash {
namespace tiles {

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
