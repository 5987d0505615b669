#pragma once

// What a thread block does with the entries of its tile: by component, and
// summed.

#include <faiss_flash/cuda/mixture/tile_rows.cuh>

namespace faiss_flash {
namespace tiles {

/// One warp: how many components come before each word's.
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

/// One warp: where each component's entries, and its vector, begin; returns
/// how many vectors there are.
__device__ inline int place_components(Shared& s) {
    const int lane = threadIdx.x % 32;
    const int all = s.components;
    uint32_t sum = 0; // entries, and vectors above them
    for (int c0 = 0; c0 < all; c0 += 32) {
        const int c = c0 + lane;
        uint32_t count = 0;
        if (c < all) {
#pragma unroll
            for (int w = 0; w < row_words; w++) {
                count += __popc(s.rows_of[c][w]);
            }
            count |= uint32_t(count > 1) << 16;
        }
        const uint32_t end = warp_scan(count);
        if (c < all) {
            s.start[c] = (sum + end - count) & 0xffff;
            s.vector[c] = (sum + end - count) >> 16;
        }
        sum += __shfl_sync(0xffffffff, end, 31);
    }
    if (lane == 0) {
        s.start[all] = sum & 0xffff;
    }
    return sum >> 16;
}

/// Entries to their places, by component and row. All threads.
/// @param width  of a row in the units of Entry::row
__device__ __forceinline__ void sort_entries(
        Shared& s,
        uint32_t width,
        uint32_t first_item,
        uint32_t first_vector) {
    constexpr int most = (tile_pairs + threads - 1) / threads;
    const int pairs = s.first_pair[tile_rows];
    int place[most];
#pragma unroll
    for (int u = 0; u < most; u++) {
        const int p = threadIdx.x + u * threads;
        place[u] = -1;
        if (p < pairs && s.share[p] > 0) {
            const int c = s.component[p], i = s.row[p];
            int at = s.start[c];
#pragma unroll
            for (int w = 0; w < row_words; w++) {
                const uint32_t rows = s.rows_of[c][w];
                at += w < i / 32    ? __popc(rows)
                        : w == i / 32 ? __popc(rows & bits_below(i % 32))
                                      : 0;
            }
            place[u] = at;
        }
    }
    if (threadIdx.x == 0) {
        s.first_vector = first_vector;
    }
    if (threadIdx.x == threads - 1) {
        s.first_item = first_item;
    }
    __syncthreads(); // rows of components have been read
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (place[u] >= 0) {
            const int p = threadIdx.x + u * threads;
            const float w = s.share[p];
            s.entry[place[u]] = {
                    s.rows[s.row[p]] * width,
                    w,
                    fminf(w * fminf(s.dist[p], 3.4e38f), 3.4e38f),
                    0};
        }
    }
}

/// One thread: a component's item if it has one row.
__device__ __forceinline__ void write_single(
        const Shared& s,
        const TileItems& items,
        int c) {
    const int e = s.start[c];
    if (s.start[c + 1] - e == 1) {
        const Entry entry = s.entry[e];
        items.items[s.first_item + c] = {
                entry.row, 1, entry.share, entry.energy};
    }
}

/// What a warp adds up of a component's entries, in order.
template <bool aligned, bool diagonal>
struct EntrySums {
    float4 x = make_float4(0, 0, 0, 0); ///< of the thread's columns
    float4 squares = x;                 ///< if diagonal, around `mean`
    float4 mean = x;
    float count = 0, energy = 0;

    /// Some entries from the e-th one on; loads first.
    /// @param rows  the thread's columns of the first row, `left` till its end
    template <int entries>
    __device__ __forceinline__ void
    add(const Shared& s, const float* rows, int left, int e) {
        float4 v[entries];
#pragma unroll
        for (int u = 0; u < entries; u++) {
            const float* row =
                    element<aligned ? 4 : 1>(rows, s.entry[e + u].row);
            if constexpr (aligned) {
                v[u] = __ldg(reinterpret_cast<const float4*>(row));
            } else {
                v[u] = load_four<false>(row, 0, left);
            }
        }
#pragma unroll
        for (int u = 0; u < entries; u++) {
            const float share = s.entry[e + u].share;
            x.x = fmaf(share, v[u].x, x.x);
            x.y = fmaf(share, v[u].y, x.y);
            x.z = fmaf(share, v[u].z, x.z);
            x.w = fmaf(share, v[u].w, x.w);
            if constexpr (diagonal) {
                add_weighted_square(share, v[u], mean, squares);
            }
            count += share;
            energy += s.entry[e + u].energy;
        }
    }
};

/// One warp: the item of a component that has several, with Σ r w x of its
/// rows, in order, and of a diagonal mixture Σ r w (x − μ)² behind it.
template <bool aligned, bool diagonal>
__device__ __forceinline__ void write_several(
        const Shared& s,
        const MixtureRowsInput& in,
        const TileItems& items,
        int c) {
    const int lane = threadIdx.x % 32;
    const int first = s.start[c], end = s.start[c + 1];
    if (end - first == 1) {
        return;
    }
    const uint32_t vector = s.first_vector + s.vector[c];
    const bool fits = vector < items.most_vectors;
    TileItem item = {vector, TileItem::vector, 0, 0};
    const int width = diagonal ? items.stride / 2 : items.stride;
    constexpr int at_once = diagonal ? 2 : 3; // registers for no more
#pragma unroll 1
    for (int j0 = 0; j0 < width; j0 += 128) {
        const int j = j0 + 4 * lane;
        // threads without columns read the first ones
        const int column = j < width ? j : 0;
        const float* rows = one_address(in.x + column);
        const int left = in.d - column;
        EntrySums<aligned, diagonal> sums;
        if constexpr (diagonal) {
            const float* mean = in.means + (int64_t)s.id[c] * in.d;
            sums.mean = load_four<aligned>(mean, column, in.d);
        }
        int e = first;
#pragma unroll 1
        for (; e + at_once <= end; e += at_once) {
            sums.template add<at_once>(s, rows, left, e);
        }
        if (at_once > 2 && e + 2 == end) {
            sums.template add<2>(s, rows, left, e);
        } else if (e < end) {
            sums.template add<1>(s, rows, left, e);
        }
        if (fits && j < width) {
            float* to = items.vectors + (int64_t)vector * items.stride + j;
            *reinterpret_cast<float4*>(to) = sums.x;
            if constexpr (diagonal) {
                *reinterpret_cast<float4*>(to + width) = sums.squares;
            }
        }
        item.count = sums.count;
        item.energy = fminf(sums.energy, 3.4e38f);
    }
    if (!fits) {
        // entries, less components, is enough for all links
        item.at = s.first_item + s.components + first - c;
        item.rows = end - first;
        TileLink* links = reinterpret_cast<TileLink*>(items.items + item.at);
        for (int e = first + lane; e < end; e += 32) {
            links[e - first] = {s.entry[e].row, s.entry[e].share};
        }
    }
    if (lane == 0) {
        items.items[s.first_item + c] = item;
    }
}

} // namespace tiles
} // namespace faiss_flash
