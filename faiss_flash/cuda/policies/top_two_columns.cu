#include <faiss_flash/cuda/policies/top_two.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

/// Extremes of scores over all columns; every block finds them for itself.
struct ScoreRange {
    float top = -INFINITY;   ///< no score is above
    float worst = INFINITY;  ///< some column's −score is below, for every row

    __device__ void add(const ScoreRange& other) {
        top = fmaxf(top, other.top);
        worst = fminf(worst, other.worst);
    }
};

__device__ ScoreRange block_range(const ScoreRange& mine) {
    __shared__ ScoreRange all[threads];
    all[threadIdx.x] = mine;
    __syncthreads(); // every thread's part is there
    for (int step = threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            all[threadIdx.x].add(all[threadIdx.x + step]);
        }
        __syncthreads(); // this level is done
    }
    return all[0];
}

__global__ void __launch_bounds__(threads) cost_columns_kernel(
        PreparedRows rows,
        PreparedCentroids means,
        ListTerms terms,
        float spread,
        float2* columns,
        CostScale* out) {
    const float x = rows.typical->norm;
    ScoreRange mine;
    for (int c = threadIdx.x; c < means.k; c += threads) {
        const float2 column = terms.columns[c];
        if (column.x == -INFINITY) {
            continue; // a weight of zero
        }
        // a = log_scale − h‖c'‖² + slack, and log p ≤ log_scale
        const float norm = means.norm[c];
        const float highest =
                column.x + column.y * norm * norm + terms.slack[c];
        const float reach = x + norm;
        mine.add({highest,
                  column.y * reach * reach + 2 * terms.slack[c] - highest});
    }
    const ScoreRange all = block_range(mine);
    const float most = fmaxf(all.top + all.worst, 0);
    const float range = 1.01f * (most + (spread > 0 ? spread : most)) +
            0x1p-20f * fabsf(all.top);
    // the best costs stay above 2⁻⁸ of the range, and so normal numbers with
    // the top bits that keys leave out
    const float offset = all.top + 0x1p-7f * range;
    int exponent;
    frexpf(1.01f * range, &exponent);
    float scale = ldexpf(1, -exponent);
    if (!(range > 0x1p-60f && range < 0x1p100f)) {
        scale = 0; // nothing is told apart
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *out = {scale, 0x1p-21f / scale};
    }
    const int c = blockIdx.x * threads + threadIdx.x;
    if (c < means.k_padded) {
        const float2 column = terms.columns[c];
        const bool real = c < means.k && column.x > -INFINITY && scale > 0;
        columns[c] = real ? make_float2(
                                    scale * (offset - column.x),
                                    scale * column.y)
                          : make_float2(INFINITY, 0);
    }
}

} // namespace

cudaError_t launch_cost_columns(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        float spread,
        float2* columns,
        CostScale* scale,
        cudaStream_t stream) {
    cost_columns_kernel<<<
            (means.k_padded + threads - 1) / threads,
            threads,
            0,
            stream>>>(rows, means, terms, spread, columns, scale);
    return cudaGetLastError();
}

} // namespace faiss_flash
