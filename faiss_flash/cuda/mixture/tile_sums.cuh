#pragma once

// A tile's responsibilities to partial sums, component by component.

#include <faiss_flash/cuda/mixture/tile_rows.cuh>

namespace faiss_flash {
namespace tiles {

/// One thread: a component's item if it has one row.
/// @param width  of a row in the units of TileItem::at
template <class Shared>
__device__ __forceinline__ void write_single(
        const Shared& s,
        const TileItems& items,
        uint32_t width,
        int c) {
    const int p = s.place_of(c).pair();
    if (s.place_of(c + 1).pair() - p == 1) {
        const Pair pair = s.pair[p];
        items.items[s.first_item + c] = {
                s.rows[s.row[p]] * width,
                pair.share > 0,
                pair.share,
                pair.energy};
    }
}

/// What a warp adds up of a component's pairs, in order.
template <bool aligned, int chunks, bool diagonal>
struct PairSums {
    float4 x = make_float4(0, 0, 0, 0); ///< of the thread's columns
    float4 squares = x;                 ///< if diagonal, around `mean`
    float4 mean = x;
    float count = 0, energy = 0;

    /// Some pairs; loads first.
    /// @param rows  the thread's columns of the first row, `left` till its end
    template <int pairs>
    __device__ __forceinline__ void
    add(const Pair* pair, const float* rows, int left) {
        float4 v[pairs];
        float share[pairs];
#pragma unroll
        for (int u = 0; u < pairs; u++) {
            const Pair at = pair[u];
            share[u] = at.share;
            energy += at.energy;
            if constexpr (chunks > 0) {
                v[u] = *reinterpret_cast<const float4*>(rows + at.offset);
            } else {
                constexpr int unit = aligned ? 4 : 1;
                v[u] = load_four<aligned>(
                        element<unit>(rows, at.offset), 0, left);
            }
        }
#pragma unroll
        for (int u = 0; u < pairs; u++) {
            x.x = fmaf(share[u], v[u].x, x.x);
            x.y = fmaf(share[u], v[u].y, x.y);
            x.z = fmaf(share[u], v[u].z, x.z);
            x.w = fmaf(share[u], v[u].w, x.w);
            if constexpr (diagonal) {
                add_weighted_square(share[u], v[u], mean, squares);
            }
            count += share[u];
        }
    }
};

/// One warp: the item of a component that has several, with Σ r w x of its
/// rows, in order, and of a diagonal mixture Σ r w (x − μ)² behind it.
/// @param v  its number among those components
template <bool aligned, int chunks, bool diagonal, class Shared>
__device__ __forceinline__ void write_several(
        const Shared& s,
        const MixtureRowsInput& in,
        const TileItems& items,
        const float* staged,
        int v) {
    const int lane = threadIdx.x % 32;
    const int c = s.several[v];
    const int first = s.place_of(c).pair(), end = s.place_of(c + 1).pair();
    const uint32_t vector = s.first_vector + v;
    const bool fits = vector < items.most_vectors;
    TileItem item = {vector, TileItem::vector, 0, 0};
    const int width = diagonal ? items.stride / 2 : items.stride;
    float* const to = items.vectors + (int64_t)vector * items.stride;
    // 128 columns; staged rows have no more
    const auto add_columns = [&](int j) {
        // threads without columns read the first ones
        const int column = j < width ? j : 0;
        const float* rows =
                chunks > 0 ? staged + column : one_address(in.x + column);
        const int left = in.d - column;
        PairSums<aligned, chunks, diagonal> sums;
        if constexpr (diagonal) {
            const float* mean = in.means + (int64_t)s.id[c] * in.d;
            sums.mean = load_four<aligned>(mean, column, in.d);
        }
        const Pair* pair = s.pair + first;
        const Pair* const behind = s.pair + end;
#pragma unroll 1
        for (; pair + 2 <= behind; pair += 2) {
            sums.template add<2>(pair, rows, left);
        }
        if (pair < behind) {
            sums.template add<1>(pair, rows, left);
        }
        if (fits && j < width) {
            *reinterpret_cast<float4*>(to + j) = sums.x;
            if constexpr (diagonal) {
                *reinterpret_cast<float4*>(to + width + j) = sums.squares;
            }
        }
        item.count = sums.count;
        item.energy = fminf(sums.energy, 3.4e38f);
    };
    if constexpr (chunks > 0) {
        add_columns(4 * lane);
    } else {
#pragma unroll 1
        for (int j0 = 0; j0 < width; j0 += 128) {
            add_columns(j0 + 4 * lane);
        }
    }
    if (!fits) {
        // pairs, less components, is enough for all links
        item.at = s.first_item + s.components + first - c;
        item.rows = end - first;
        TileLink* links = reinterpret_cast<TileLink*>(items.items + item.at);
        const uint32_t row_width = in.d / (aligned ? 4 : 1);
        for (int p = first + lane; p < end; p += 32) {
            links[p - first] = {
                    s.rows[s.row[p]] * row_width, s.pair[p].share};
        }
    }
    if (lane == 0) {
        items.items[s.first_item + c] = item;
    }
}

} // namespace tiles
} // namespace faiss_flash
