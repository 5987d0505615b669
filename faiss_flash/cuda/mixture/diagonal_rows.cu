// The rows' side of a diagonal mixture's scores, and rows' thresholds.

#include <faiss_flash/cuda/mixture/diagonal.cuh>
#include <faiss_flash/cuda/mixture/diagonal_scores.cuh>
#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/row_lanes.cuh>

namespace faiss_flash {

using namespace diagonal;

namespace {

constexpr float largest_half = 65504;

/// Eight threads a row.
template <bool aligned>
__global__ void __launch_bounds__(threads) diagonal_rows_kernel(
        int64_t n,
        int d,
        int d_padded,
        const float* __restrict__ x,
        const float* __restrict__ offset,
        const float* __restrict__ scales,
        __half* __restrict__ halves,
        float* __restrict__ slack) {
    constexpr int lanes = pair_lanes;
    const int lane = threadIdx.x % lanes;
    const int64_t i =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    const bool real = i < n;
    const float* row = x + (real ? i : 0) * d;
    __half* to = halves + (real ? i : 0) * 2 * d_padded;
    float norm2 = 0;
    bool fits = true;
#pragma unroll 4
    for (int j = 4 * lane; j < d_padded; j += 4 * lanes) {
        struct alignas(8) Halves {
            __half v[4];
        } linear, square;
        const float4 in = load_four<aligned>(row, j, d);
        const float4 o = load_four<aligned>(offset, j, d);
        const float4 s4 = load_four<aligned>(scales, j, d);
        const float4 t4 = load_four<aligned>(scales + d, j, d);
        const float value[4] = {in.x - o.x, in.y - o.y, in.z - o.z, in.w - o.w};
        const float s[4] = {s4.x, s4.y, s4.z, s4.w};
        const float t[4] = {t4.x, t4.y, t4.z, t4.w};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const bool there = j + e < d;
            const float scaled = there ? value[e] * s[e] : 0;
            const bool in_range = fabsf(scaled) <= largest_half;
            linear.v[e] = __float2half_rn(in_range ? scaled : 0);
            const float back = __half2float(linear.v[e]);
            // all that is off: of the half, and of the subtraction
            const float ratio = there ? t[e] / s[e] : 0;
            const float off = fabsf(scaled - back) * ratio +
                    0x1p-23f * fabsf(back * ratio);
            const float near = back * ratio;
            const float low = near * near * (1 - 0x1p-21f) -
                    float(gain) * off * off;
            fits &= in_range && low >= -largest_half;
            // above the largest half the largest half is lower still
            square.v[e] = __float2half_rd(
                    fmaxf(fminf(low, largest_half), -largest_half));
            const float q = __half2float(square.v[e]);
            norm2 += back * back + q * q;
        }
        if (real) {
            *reinterpret_cast<Halves*>(to + j) = linear;
            *reinterpret_cast<Halves*>(to + d_padded + j) = square;
        }
    }
    norm2 = row_sum<lanes>(norm2);
    const unsigned all =
            __ballot_sync(0xffffffff, fits) >> (threadIdx.x % 32 / lanes * lanes);
    if (real && lane == 0) {
        const bool in_range = (all & 0xff) == 0xff;
        slack[i] = in_range ? -2 * loss_per_norm(d_padded) * largest_norm *
                        sqrtf(norm2)
                            : -INFINITY; // lists everything
    }
}

/// Eight threads a row; chunks: see PairRow.
template <bool aligned, int chunks>
__global__ void __launch_bounds__(threads) diagonal_limits_kernel(
        const MixtureRowsInput in,
        const uint32_t* __restrict__ best,
        const uint32_t* __restrict__ order,
        const float* __restrict__ slack,
        RowLimit* __restrict__ limits) {
    const int64_t i =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / pair_lanes;
    const int64_t at = min(i, in.n - 1);
    // blocks of rows are powers of two
    const int64_t row = (at & -in.block_rows) + order[at];
    const uint32_t c = min(best[row], uint32_t(in.k - 1));
    PairRow<aligned, chunks, true> x;
    x.load(in.x + row * in.d);
    const float dist = distance_of(x, in, c);
    if (i < in.n && threadIdx.x % pair_lanes == 0) {
        const float log_scale = in.components[c].log_scale;
        const float off = (in.d / 8 + 64) * 0x1p-23f;
        const float threshold = log_scale - dist - in.range -
                (fabsf(log_scale) + dist) * off;
        limits[row] = {
                slack[row],
                isfinite(threshold) ? threshold : -INFINITY,
                INFINITY};
    }
}

} // namespace

void DiagonalMixture::prepare_rows(
        int64_t n,
        const float* x,
        const Shift& shift,
        cudaStream_t stream) {
    n_ = n;
    const bool aligned = d_ % 4 == 0 &&
            (reinterpret_cast<uintptr_t>(x) |
             reinterpret_cast<uintptr_t>(shift.offset)) %
                            16 ==
                    0;
    const auto kernel =
            aligned ? diagonal_rows_kernel<true> : diagonal_rows_kernel<false>;
    kernel<<<blocks_for(n * pair_lanes), threads, 0, stream>>>(
            n,
            d_,
            padded(d_),
            x,
            shift.offset,
            scales_.get(),
            row_halves_.get(),
            row_slack_.get());
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

void DiagonalMixture::limits(
        const MixtureRowsInput& in,
        const uint32_t* best,
        const uint32_t* order,
        RowLimit* limits,
        cudaStream_t stream) const {
    const bool aligned = in.aligned();
    const auto kernel = !aligned ? diagonal_limits_kernel<false, 0>
            : in.d == 128        ? diagonal_limits_kernel<true, 4>
            : in.d == 96         ? diagonal_limits_kernel<true, 3>
                                 : diagonal_limits_kernel<true, 0>;
    kernel<<<blocks_for(in.n * pair_lanes), threads, 0, stream>>>(
            in, best, order, row_slack_.get(), limits);
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

PreparedRows DiagonalMixture::rows() const {
    PreparedRows rows;
    rows.n = n_;
    rows.d = d_;
    rows.d_padded = 2 * padded(d_);
    rows.halves = row_halves_.get();
    rows.norm = row_slack_.get();
    return rows;
}

} // namespace faiss_flash
