#pragma once

// A tile's pairs to densities and responsibilities.

#include <climits>

#include <faiss_flash/cuda/mixture/tile_rows.cuh>

namespace faiss_flash {
namespace tiles {

constexpr int pair_groups = threads / pair_lanes;

/// A thread's columns of a mean, and of 1 / 2σ² if diagonal.
template <bool aligned, int chunks, bool diagonal>
struct PairMean {
    static constexpr bool kept = chunks > 0 && !diagonal; // registers
    const float *mean, *h;
    float4 m[kept ? chunks : 1] = {};

    __device__ __forceinline__ void load(
            const MixtureRowsInput& in,
            uint32_t component) {
        constexpr int unit = aligned ? 4 : 1;
        const uint32_t first = component * (uint32_t)(in.d / unit);
        mean = element<unit>(in.means, first);
        h = element<unit>(in.half_precisions, first);
        if constexpr (kept) {
#pragma unroll
            for (int i = 0; i < chunks; i++) {
                m[i] = columns(mean, i, in.d);
            }
        }
    }

    /// The thread's sums of a row's distance.
    /// @param row  its columns, 32 · chunks of them if staged
    __device__ __forceinline__ float4 squares(const float* row, int d) const {
        float4 sums = make_float4(0, 0, 0, 0);
        if constexpr (chunks > 0) {
#pragma unroll(diagonal ? 2 : chunks)
            for (int i = 0; i < chunks; i++) {
                add(*reinterpret_cast<const float4*>(row + pair_column(i)),
                    i,
                    d,
                    sums);
            }
        } else {
#pragma unroll 2
            for (int i = 0; pair_column(i) < d; i++) {
                add(load_four<aligned>(row, pair_column(i), d), i, d, sums);
            }
        }
        return sums;
    }

   private:
    /// Only the last chunk may go beyond the end.
    __device__ __forceinline__ static float4
    columns(const float* from, int chunk, int d) {
        if constexpr (aligned && chunks > 0) {
            if (chunk + 1 < chunks) {
                return __ldg(reinterpret_cast<const float4*>(
                        from + pair_column(chunk)));
            }
        }
        return load_four<aligned>(from, pair_column(chunk), d);
    }
    __device__ __forceinline__ void
    add(const float4& x, int chunk, int d, float4& sums) const {
        if constexpr (kept) {
            add_square(x, m[chunk], sums);
        } else if constexpr (diagonal) {
            add_square(
                    x, columns(mean, chunk, d), columns(h, chunk, d), sums);
        } else {
            add_square(x, columns(mean, chunk, d), sums);
        }
    }
};

/// Squared distances of all pairs; eight threads take a run of them, and keep
/// the mean while there are pairs of it.
/// @param staged  rows, if chunks > 0
template <bool aligned, int chunks, bool diagonal, class Shared>
__device__ __forceinline__ void pair_distances(
        Shared& s,
        const MixtureRowsInput& in,
        const float* staged) {
    const int group = threadIdx.x / pair_lanes;
    const int all = s.pairs();
    int pair = all * group / pair_groups;
    const int end = all * (group + 1) / pair_groups;
    const int steps = (all + pair_groups - 1) / pair_groups;
    const float* rows = one_address(in.x);
    int next = pair; // where the component ends; as if one had just ended
    PairMean<aligned, chunks, diagonal> mean;
    mean.mean = in.means;
    mean.h = in.half_precisions;
    const auto load_mean_of = [&](int pair) {
        if (pair >= next && pair < end) {
            const int c = s.component[pair];
            next = s.place_of(c + 1).pair();
            mean.load(in, s.id[c]);
        }
    };
    load_mean_of(pair);
#pragma unroll 1
    for (int step = 0; step < steps; step++, pair++) {
        // past the end: anything that exists
        const int r = s.row[min(pair, all - 1)];
        const float* row;
        if constexpr (chunks > 0) {
            row = staged + r * Parts<chunks>::stride;
        } else {
            constexpr int unit = aligned ? 4 : 1;
            row = element<unit>(rows, s.rows[r] * (uint32_t)(in.d / unit));
        }
        const float4 squares = mean.squares(row, in.d);
        load_mean_of(pair + 1); // on its way while lanes add up
        const float dist = pair_sum(squares);
        if (pair < end && threadIdx.x % pair_lanes == 0) {
            s.pair[pair].dist = dist;
        }
    }
}

/// Integers in the order of floats, and back.
__device__ inline int ordered(float value) {
    const int bits = __float_as_int(value);
    return bits ^ (bits >> 31 & 0x7fffffff);
}
__device__ inline float unordered(int bits) {
    return __int_as_float(bits ^ (bits >> 31 & 0x7fffffff));
}

// Sums over a row's pairs are of integers, so that their order does not
// matter. A row has up to row_entries shares of at most 2.
constexpr float share_one = 1 << 24;
constexpr float lost_one = 0x1p40f; ///< each below 2⁻¹⁰

/// What densities of the tile's row i are relative to: the largest one, but
/// for rounding.
template <class Shared>
__device__ inline double row_top(const Shared& s, int i) {
    return (double)s.threshold[i] + unordered(s.top[i]);
}

/// Log densities, and the largest one of each row.
template <class Shared>
__device__ __forceinline__ void pair_values(
        Shared& s,
        const MixtureRowsInput& in) {
    for_each_pair(s, [&](int p) {
        const int i = s.row[p];
        Pair& pair = s.pair[p];
        const double value = log_density_of(
                in, s.rows[i], s.id[s.component[p]], pair.dist);
        pair.value = value;
        atomicMax(&s.top[i], ordered(float(value - s.threshold[i])));
    });
}

/// Shares of a row's largest one, and their sums.
template <class Shared>
__device__ __forceinline__ void pair_shares(
        Shared& s,
        const MixtureRowsInput& in) {
    // what lies below counts as not listed: that depends on the row alone
    const float nothing = expf(-mask_range(in.range));
    for_each_pair(s, [&](int p) {
        const int i = s.row[p];
        const double value = s.pair[p].value;
        // above 1 by rounding, and by more only where the row is too far off
        const float share =
                fminf(__expf(float(value - row_top(s, i))), 2.f);
        const bool counts = share >= nothing;
        s.pair[p].share = counts ? share : 0;
        if (counts) {
            atomicAdd(&s.sum[i], __float2uint_rn(share * share_one));
            atomicAdd(&s.listed[i], 1);
        } else {
            atomicAdd(&s.lost[i], __float2uint_ru(share * lost_one));
        }
        if (ordered(float(value - s.threshold[i])) == s.top[i]) {
            atomicMin(&s.best[i], s.id[s.component[p]]);
        }
    });
}

/// One thread: the normaliser of the tile's row i. False: the row is wide.
/// @param tail  see MaskOutput
template <class Shared>
__device__ __forceinline__ bool settle_row(
        Shared& s,
        const MixtureRowsInput& in,
        const MixtureRowsOutput& out,
        int i) {
    if (s.count[i] == 0) {
        return false;
    }
    const int64_t row = s.rows[i];
    const double top = row_top(s, i);
    const float sum = s.sum[i] / share_one;
    const float inverse = 1 / sum;
    // what is not listed, by its scores
    const float tail = MaskView::tail(s.near[i], in.k - s.count[i]);
    const float unlisted = tail * expf(float(s.threshold[i] - top) + 1e-3f);
    const float lost = (s.lost[i] / lost_one + unlisted) * inverse;
    // far above the threshold single precision would not do
    const bool near = unordered(s.top[i]) < 0x1p16f;
    if (!(near && lost <= in.most_unlisted)) {
        s.scale[i] = 0;
        s.least[i] = INFINITY;
        s.lost[i] = 0;
        return false;
    }
    s.lost[i] = __float2uint_ru(lost * lost_one);
    s.least[i] = in.most_drop * sum / s.listed[i];
    s.scale[i] = in.weights ? inverse * in.weights[row] : inverse;
    out.set_row(row, top + logf(sum), s.best[i]);
    return true;
}

/// Responsibilities, times the rows' weights.
/// @param width  of a row, in the units of Pair::offset
template <class Shared>
__device__ __forceinline__ void pair_responsibilities(
        Shared& s,
        bool staged,
        uint32_t width) {
    int kept = 0;
    for_each_pair(s, [&](int p) {
        const int i = s.row[p];
        Pair pair = s.pair[p];
        const bool keep = pair.share > 0 && pair.share >= s.least[i];
        kept += keep;
        if (!keep && pair.share > 0 && s.scale[i] > 0) {
            atomicAdd(&s.lost[i], __float2uint_ru(pair.share * lost_one));
        }
        const float w = keep ? pair.share * s.scale[i] : 0;
        pair.share = w;
        pair.energy = fminf(w * fminf(pair.dist, 3.4e38f), 3.4e38f);
        pair.offset = (staged ? i : s.rows[i]) * width;
        s.pair[p] = pair;
    });
    __syncwarp(); // whole warps from here
    kept = __reduce_add_sync(0xffffffff, kept);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(&s.kept, kept);
    }
}

/// One warp: onto the totals of the pass.
template <class Shared>
__device__ __forceinline__ void write_totals(
        const Shared& s,
        int rows,
        RowTotals* totals) {
    uint32_t most = 0;
    for (int i = threadIdx.x; i < rows; i += 32) {
        most = max(most, s.lost[i]);
    }
    const float dropped =
            __reduce_max_sync(0xffffffff, most) / lost_one;
    if (threadIdx.x == 0) {
        atomicAdd(&totals->entries, (unsigned long long)s.kept);
        totals->raise_dropped(dropped);
    }
}

} // namespace tiles
} // namespace faiss_flash
