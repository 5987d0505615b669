#pragma once

// ‖x − μ‖² of one row and one component, or Σ h (x − μ)² of a diagonal one:
// eight threads, each a part of every 32 columns.

#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

constexpr int pair_lanes = 8;

/// The same pointer, as one value: the compiler would add its parts to every
/// offset again, in 64 bits.
__device__ inline const float* one_address(const float* p) {
    asm volatile("" : "+l"(p));
    return p;
}
/// `p` and i times `unit` floats: one instruction.
template <int unit>
__device__ inline const float* element(const float* p, uint32_t i) {
    struct Unit {
        float value[unit];
    };
    return reinterpret_cast<const float*>(
            reinterpret_cast<const Unit*>(p) + i);
}

/// A thread's first column of 32.
__device__ inline int pair_column(int chunk) {
    return 4 * (threadIdx.x % pair_lanes) + 4 * pair_lanes * chunk;
}

/// Four columns of a row that may end before or not be aligned.
template <bool aligned>
__device__ inline float4 load_four(const float* row, int column, int d) {
    if constexpr (aligned) {
        return column < d
                ? __ldg(reinterpret_cast<const float4*>(row + column))
                : make_float4(0, 0, 0, 0);
    }
    return make_float4(
            column < d ? __ldg(row + column) : 0,
            column + 1 < d ? __ldg(row + column + 1) : 0,
            column + 2 < d ? __ldg(row + column + 2) : 0,
            column + 3 < d ? __ldg(row + column + 3) : 0);
}

__device__ inline void add_square(
        const float4& a,
        const float4& b,
        float4& sum) {
    const float4 s = make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
    sum.x = fmaf(s.x, s.x, sum.x);
    sum.y = fmaf(s.y, s.y, sum.y);
    sum.z = fmaf(s.z, s.z, sum.z);
    sum.w = fmaf(s.w, s.w, sum.w);
}

/// Σ h (a − b)²
__device__ inline void add_square(
        const float4& a,
        const float4& b,
        const float4& h,
        float4& sum) {
    const float4 s = make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
    sum.x = fmaf(s.x * s.x, h.x, sum.x);
    sum.y = fmaf(s.y * s.y, h.y, sum.y);
    sum.z = fmaf(s.z * s.z, h.z, sum.z);
    sum.w = fmaf(s.w * s.w, h.w, sum.w);
}

/// sum += w (x − μ)², which stays finite.
__device__ inline void add_weighted_square(
        float w,
        const float4& x,
        const float4& mean,
        float4& sum) {
    const float4 s = make_float4(
            x.x - mean.x, x.y - mean.y, x.z - mean.z, x.w - mean.w);
    const float most = 0x1p120f; // of one row: a tile adds up 128 of them
    sum.x = fmaf(w, fminf(s.x * s.x, most), sum.x);
    sum.y = fmaf(w, fminf(s.y * s.y, most), sum.y);
    sum.z = fmaf(w, fminf(s.z * s.z, most), sum.z);
    sum.w = fmaf(w, fminf(s.w * s.w, most), sum.w);
}

/// All of the eight threads get it; the same order of additions everywhere.
__device__ inline float pair_sum(const float4& sums) {
    float sum = (sums.x + sums.y) + (sums.z + sums.w);
#pragma unroll
    for (int apart = pair_lanes / 2; apart > 0; apart /= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, apart);
    }
    return sum;
}

/** Distances of one row after the other from components.
 * @tparam chunks  of 32 columns, all there are, kept in registers; 0: any
 *                 number of columns, which are read again for every component
 */
template <bool aligned, int chunks, bool diagonal = false>
struct PairRow {
    const float* row;
    float4 x[chunks > 0 ? chunks : 1];

    __device__ __forceinline__ void load(const float* from) {
        row = from;
        const float4* mine = reinterpret_cast<const float4*>(from + pair_column(0));
#pragma unroll
        for (int i = 0; i < chunks; i++) {
            x[i] = __ldg(mine + pair_lanes * i);
        }
    }
    /// @param h  1 / 2σ² of the component, if diagonal
    __device__ __forceinline__ float
    distance(const float* mean, const float* h, int d) const {
        float4 sums = make_float4(0, 0, 0, 0);
        if constexpr (chunks > 0) {
            const float4* from =
                    reinterpret_cast<const float4*>(mean + pair_column(0));
#pragma unroll
            for (int i = 0; i < chunks; i++) {
                const float4 m = __ldg(from + pair_lanes * i);
                if constexpr (diagonal) {
                    const float4* h4 =
                            reinterpret_cast<const float4*>(h + pair_column(0));
                    add_square(x[i], m, __ldg(h4 + pair_lanes * i), sums);
                } else {
                    add_square(x[i], m, sums);
                }
            }
        } else {
#pragma unroll 4
            for (int i = 0; pair_column(i) < d; i++) {
                const float4 r = load_four<aligned>(row, pair_column(i), d);
                const float4 m = load_four<aligned>(mean, pair_column(i), d);
                if constexpr (diagonal) {
                    add_square(
                            r, m, load_four<aligned>(h, pair_column(i), d), sums);
                } else {
                    add_square(r, m, sums);
                }
            }
        }
        return pair_sum(sums);
    }
};

/// The distance of a component.
template <class Row>
__device__ __forceinline__ float distance_of(
        const Row& x,
        const MixtureRowsInput& in,
        uint32_t component) {
    const int64_t first = (int64_t)component * in.d;
    return x.distance(in.means + first, in.half_precisions + first, in.d);
}

/// In double precision by one thread: finite data may have distances beyond
/// single precision.
__device__ inline double far_distance(
        const MixtureRowsInput& in,
        int64_t row,
        uint32_t component) {
    const float* x = in.x + row * in.d;
    const float* c = in.means + (int64_t)component * in.d;
    double dist = 0;
#pragma unroll 1
    for (int j = 0; j < in.d; j++) {
        const double step = (double)x[j] - c[j];
        const double h = in.half_precisions
                ? in.half_precisions[(int64_t)component * in.d + j]
                : 1;
        dist += h * step * step;
    }
    return dist;
}

/// log p(x, k) where their squared distance is dist.
__device__ inline double log_density_of(
        const MixtureRowsInput& in,
        int64_t row,
        uint32_t component,
        float dist) {
    const ComponentTerms terms = in.components[component];
    const double exact =
            isinf(dist) ? far_distance(in, row, component) : dist;
    return terms.log_scale - terms.precision * exact;
}

} // namespace faiss_flash
