#pragma once

// What a thread block does with the entries of its tile: by component, and
// summed.

#include <faiss_flash/cuda/mixture_tile_rows.cuh>

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
__device__ __forceinline__ void sort_entries(
        Shared& s,
        unsigned long long first_item,
        unsigned long long first_vector) {
    constexpr int most = (tile_pairs + threads - 1) / threads;
    const int pairs = s.first_pair[tile_rows];
    int place[most];
    uint32_t number[most];
    float share[most], energy[most];
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
            number[u] = s.rows[i];
            share[u] = s.share[p];
            energy[u] = s.energy[p];
        }
    }
    if (threadIdx.x == 0) {
        s.first_vector = first_vector;
    }
    if (threadIdx.x == threads - 1) {
        s.first_item = first_item;
    }
    __syncthreads(); // pairs have been read
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (place[u] >= 0) {
            s.number[place[u]] = number[u];
            s.share[place[u]] = share[u];
            s.energy[place[u]] = energy[u];
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
        items.items[s.first_item + c] = {
                s.number[e], 1, s.share[e], s.energy[e]};
    }
}

/// One warp: the item of a component that has several, with Σ r w x of its
/// rows, in order.
template <bool aligned>
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
    float count = 0, energy = 0;
    for (int e = first + lane; e < end; e += 32) {
        count += s.share[e];
        energy += s.energy[e];
    }
    __syncwarp(); // whole warps from here
    count = warp_sum(count);
    energy = fminf(warp_sum(energy), 3.4e38f);
    const uint32_t vector = s.first_vector + s.vector[c];
    TileItem item = {vector, TileItem::vector, count, energy};
    if (vector < items.most_vectors) {
        float* to = items.vectors + (int64_t)vector * items.stride;
        for (int j = 4 * lane; j < items.stride; j += 128) {
            float4 sum = make_float4(0, 0, 0, 0);
            constexpr int at_once = 4;
            for (int e0 = first; e0 < end; e0 += at_once) {
#pragma unroll
                for (int u = 0; u < at_once; u++) {
                    // past the end: nothing of the last one
                    const int e = min(e0 + u, end - 1);
                    const float w = e0 + u < end ? s.share[e] : 0;
                    const float4 v = load_four<aligned>(
                            in.x + (int64_t)s.number[e] * in.d, j, in.d);
                    sum.x = fmaf(w, v.x, sum.x);
                    sum.y = fmaf(w, v.y, sum.y);
                    sum.z = fmaf(w, v.z, sum.z);
                    sum.w = fmaf(w, v.w, sum.w);
                }
            }
            *reinterpret_cast<float4*>(to + j) = sum;
        }
    } else {
        // entries, less components, is enough for all links
        item.at = s.first_item + s.components + first - c;
        item.rows = end - first;
        TileLink* links = reinterpret_cast<TileLink*>(items.items + item.at);
        for (int e = first + lane; e < end; e += 32) {
            links[e - first] = {s.number[e], s.share[e]};
        }
    }
    if (lane == 0) {
        items.items[s.first_item + c] = item;
    }
}

} // namespace tiles
} // namespace faiss_flash
