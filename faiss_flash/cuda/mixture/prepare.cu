#include <faiss_flash/cuda/mixture/prepare.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// Norms are stored rounded up by this factor (see prepare.cu).
__device__ float squared_norm(float norm, int d) {
    const float plain = norm / (1 + (d + 64) * 0x1p-24f);
    return plain * plain;
}

/// The typical row, a little larger: chunks of one data set then allow for
/// the same, and rows list the same whatever chunk they are in (mostly).
__device__ TypicalRow usual_row(const PreparedRows& rows) {
    const auto up = [](float value) {
        return __int_as_float((__float_as_int(value) + 0xfffff) & ~0xfffff);
    };
    const TypicalRow typical = *rows.typical;
    return {up(typical.norm), up(typical.error), typical.largest_norm};
}

/// Largest error of a score: of the half-precision product, of the squared
/// norms and of the additions.
__device__ float list_error(
        int d,
        float h,
        float log_scale,
        float row_norm,
        float row_error,
        float norm,
        float error) {
    const float sum = row_norm + norm;
    return h *
            (score_error(true, d, row_norm, row_error, norm, error) +
             (d / 32 + 16) * 0x1p-24f * sum * sum) +
            0x1p-21f * fabsf(log_scale);
}

/// Not negative: their bits order like integers.
__device__ void raise(float* to, float value) {
    atomicMax(reinterpret_cast<int*>(to), __float_as_int(value));
}

__global__ void list_terms_kernel(
        PreparedRows rows,
        PreparedCentroids means,
        const ComponentTerms* components,
        bool l2,
        double scale,
        ListTerms out) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= means.k_padded) {
        return;
    }
    if (c >= means.k) {
        out.columns[c] = make_float2(-INFINITY, 0);
        out.slack[c] = 0;
        return;
    }
    const float norm = means.norm[c], error = means.error[c];
    float log_scale = 0, h = l2 ? 1 : 0.5f;
    if (components) {
        log_scale = components[c].log_scale;
        h = components[c].precision / (scale * scale);
    }
    const TypicalRow usual = usual_row(rows);
    // a weight of zero: never listed, and its −inf is no error
    const float finite_scale = isinf(log_scale) ? 0 : log_scale;
    const float slack = list_error(
            rows.d, h, finite_scale, usual.norm, usual.error, norm, error);
    const float norm2 = l2 ? squared_norm(norm, rows.d) : 0;
    out.columns[c] = make_float2(log_scale - h * norm2 + slack, h);
    out.slack[c] = slack;
    raise(&out.bounds->slack, slack);
    raise(&out.bounds->norm, norm);
    raise(&out.bounds->error, error);
    raise(&out.bounds->h, h);
    raise(&out.bounds->scale, fabsf(finite_scale));
}

/// What the threshold of a row that is not typical must be lower by.
__device__ float extra_error(
        const PreparedRows& rows,
        const ListBounds& bounds,
        float norm,
        float error) {
    const TypicalRow usual = usual_row(rows);
    return norm <= usual.norm && error <= usual.error
            ? 0
            : list_error(
                      rows.d,
                      bounds.h,
                      bounds.scale,
                      norm,
                      error,
                      bounds.norm,
                      bounds.error);
}

constexpr int row_lanes = 16; ///< threads that share a row's product

/// 16 threads take 16 rows, product by product; then each has one row.
__global__ void __launch_bounds__(256) row_limits_kernel(
        PreparedRows rows,
        PreparedCentroids means,
        ListTerms terms,
        const uint32_t* __restrict__ labels,
        float range,
        bool rises,
        RowLimit* __restrict__ limits) {
    const int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int lane = threadIdx.x % row_lanes;
    const bool real = row < rows.n;
    const uint32_t label =
            real ? min(labels[row], uint32_t(means.k - 1)) : 0;
    float dot = 0;
#pragma unroll 4
    for (int i = 0; i < row_lanes; i++) {
        const int64_t r = min(row - lane + i, rows.n - 1);
        const int64_t c = __shfl_sync(0xffffffff, label, i, row_lanes);
        float sum = 0;
        for (int j = lane * 8; j < rows.d_padded; j += row_lanes * 8) {
            const uint4 a = __ldg(reinterpret_cast<const uint4*>(
                    rows.halves + r * rows.d_padded + j));
            const uint4 b = __ldg(reinterpret_cast<const uint4*>(
                    means.halves + c * rows.d_padded + j));
            const __half2* a2 = reinterpret_cast<const __half2*>(&a);
            const __half2* b2 = reinterpret_cast<const __half2*>(&b);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float2 p = __half22float2(a2[e]);
                const float2 q = __half22float2(b2[e]);
                sum = fmaf(p.x, q.x, sum);
                sum = fmaf(p.y, q.y, sum);
            }
        }
#pragma unroll
        for (int step = row_lanes / 2; step > 0; step /= 2) {
            sum += __shfl_xor_sync(0xffffffff, sum, step);
        }
        dot = i == lane ? sum : dot;
    }
    if (!real) {
        return;
    }
    const ListBounds bounds = *terms.bounds;
    const float norm = rows.norm[row], error = rows.error[row];
    const float norm2 = squared_norm(norm, rows.d);
    const float2 column = terms.columns[label];
    const float slack = terms.slack[label];
    const float extra = extra_error(rows, bounds, norm, error);
    const float score = fmaf(column.y, fmaf(2, dot, -norm2), column.x) - slack;
    RowLimit limit;
    limit.norm2 = norm2;
    // the error of this row's score, the range, and the errors of others
    limit.threshold = score - fmaxf(slack, extra) - range - extra;
    limit.rise = rises ? range + 2 * bounds.slack + 2 * extra : INFINITY;
    limits[row] = limit;
}

__global__ void row_norms_kernel(
        PreparedRows rows,
        bool l2,
        RowLimit* limits) {
    const int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows.n) {
        // until there is a threshold, everything is listed
        limits[row] = {
                l2 ? squared_norm(rows.norm[row], rows.d) : 0,
                -INFINITY,
                INFINITY};
    }
}

/// One warp a row; one group a lane.
__global__ void group_limits_kernel(
        PreparedRows rows,
        ListTerms terms,
        int m,
        const float* group_best,
        RowLimit* limits) {
    const int64_t row =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows.n) {
        return;
    }
    const int lane = threadIdx.x % 32;
    const float mine = group_best[row * list_groups_per_row + lane];
    // how many are larger, the lower lane among equals; NaN is nowhere
    int rank = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const float other = __shfl_sync(0xffffffff, mine, i);
        rank += other > mine || (other == mine && i < lane);
    }
    if (rank == m - 1 && mine == mine) {
        const ListBounds bounds = *terms.bounds;
        const float extra =
                extra_error(rows, bounds, rows.norm[row], rows.error[row]);
        // true scores are above v − 2·slack − extra, and what is worth
        // listing has v above its true score − extra
        limits[row].threshold = mine - 2 * bounds.slack - 2 * extra;
    }
}

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

} // namespace

cudaError_t launch_list_terms(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ComponentTerms* components,
        bool l2,
        float scale,
        const ListTerms& out,
        cudaStream_t stream) {
    const cudaError_t error =
            cudaMemsetAsync(out.bounds, 0, sizeof(ListBounds), stream);
    if (error != cudaSuccess) {
        return error;
    }
    list_terms_kernel<<<blocks_for(means.k_padded), threads, 0, stream>>>(
            rows, means, components, l2, scale, out);
    return cudaGetLastError();
}

cudaError_t launch_row_limits(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const uint32_t* labels,
        float range,
        RowLimit* limits,
        cudaStream_t stream,
        bool rises) {
    row_limits_kernel<<<
            blocks_for(rows.n),
            threads,
            0,
            stream>>>(rows, means, terms, labels, range, rises, limits);
    return cudaGetLastError();
}

cudaError_t launch_row_norms(
        const PreparedRows& rows,
        bool l2,
        RowLimit* limits,
        cudaStream_t stream) {
    row_norms_kernel<<<blocks_for(rows.n), threads, 0, stream>>>(
            rows, l2, limits);
    return cudaGetLastError();
}

cudaError_t launch_group_limits(
        const PreparedRows& rows,
        const ListTerms& terms,
        int m,
        const float* group_best,
        RowLimit* limits,
        cudaStream_t stream) {
    group_limits_kernel<<<blocks_for(rows.n * 32), threads, 0, stream>>>(
            rows, terms, m, group_best, limits);
    return cudaGetLastError();
}

} // namespace faiss_flash
