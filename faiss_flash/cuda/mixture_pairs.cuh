#pragma once

// ‖x − μ‖² of one row and one component: eight threads, each a part of every
// 32 columns.

#include <faiss_flash/cuda/mixture_settle.cuh>

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
template <bool aligned, int chunks>
struct PairRow {
    const float* row;
    float4 x[chunks > 0 ? chunks : 1];

    __device__ static int column(int chunk) {
        return 4 * (threadIdx.x % pair_lanes) + 4 * pair_lanes * chunk;
    }
    __device__ __forceinline__ void load(const float* from) {
        row = from;
        const float4* mine = reinterpret_cast<const float4*>(from + column(0));
#pragma unroll
        for (int i = 0; i < chunks; i++) {
            x[i] = __ldg(mine + pair_lanes * i);
        }
    }
    __device__ __forceinline__ float distance(const float* mean, int d) const {
        float4 sums = make_float4(0, 0, 0, 0);
        if constexpr (chunks > 0) {
            const float4* from =
                    reinterpret_cast<const float4*>(mean + column(0));
#pragma unroll
            for (int i = 0; i < chunks; i++) {
                add_square(x[i], __ldg(from + pair_lanes * i), sums);
            }
        } else {
#pragma unroll 2
            for (int i = 0; column(i) < d; i++) {
                add_square(
                        load_four<aligned>(row, column(i), d),
                        load_four<aligned>(mean, column(i), d),
                        sums);
            }
        }
        return pair_sum(sums);
    }
};

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
        dist += step * step;
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
