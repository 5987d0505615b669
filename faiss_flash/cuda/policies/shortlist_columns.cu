#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/policies/shortlist.cuh>
#include <faiss_flash/cuda/policies/top_two.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

/// Fn over all threads' values, two at a time; every thread gets it.
template <class Fn>
__device__ float block_reduce(float mine, Fn&& fn) {
    __shared__ float all[threads];
    __syncthreads(); // nobody reads the last answer any more
    all[threadIdx.x] = mine;
    __syncthreads(); // every thread's part is there
    for (int step = threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            all[threadIdx.x] = fn(all[threadIdx.x], all[threadIdx.x + step]);
        }
        __syncthreads(); // this level is done
    }
    return all[0];
}

/// Every block finds the range for itself.
__global__ void __launch_bounds__(threads) shortlist_columns_kernel(
        PreparedRows rows,
        PreparedCentroids means,
        float* alpha,
        ShortlistTerms* out) {
    const auto smaller = [](float a, float b) { return fminf(a, b); };
    const auto larger = [](float a, float b) { return fmaxf(a, b); };
    float nearest = INFINITY;
    for (int c = threadIdx.x; c < means.k; c += threads) {
        nearest = fminf(nearest, means.norm[c]);
    }
    nearest = block_reduce(nearest, smaller);
    // Some centroid is at most `reach` away from every row up to X; nobody
    // looks for those that are more than four times as far from all of them.
    const float x = rows.typical->largest_norm;
    const float reach = 1.01f * (x + nearest);
    const float far = x + 4 * reach;
    float norm = 0, error = 0, beyond = 0;
    for (int c = threadIdx.x; c < means.k; c += threads) {
        if (means.norm[c] <= far) {
            norm = fmaxf(norm, means.norm[c]);
            error = fmaxf(error, means.error[c]);
        } else {
            beyond = 1;
        }
    }
    norm = block_reduce(norm, larger);
    error = block_reduce(error, larger);
    beyond = block_reduce(beyond, larger);
    const float range = fmaxf(1.01f * (x + norm) * (x + norm), 0x1p-60f);
    int exponent;
    frexpf(range, &exponent);
    const float scale = ldexpf(0.25f, -exponent); // range·scale ≤ ¼
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        ShortlistTerms terms;
        terms.beta = -2 * scale;
        terms.scale = scale;
        terms.per_scale = 1 / scale;
        terms.row_norm = x;
        terms.norm = norm;
        // see score_error()
        const float steps = 0x1p-22f + 1.06f * 0x1p-23f * (rows.d + 16);
        terms.by_norm = 2.0001f * (error + steps * norm);
        terms.by_error = 2.0001f * (norm + error);
        terms.by_square = 0x1p-21f + (rows.d / 32 + 16) * 0x1p-24f;
        terms.ceiling = shortlist_none;
        if (beyond > 0) {
            // Q of those is above (4·reach)²
            const float most = 0.5f + fminf(15 * reach * reach * scale, 0.25f);
            terms.ceiling = __float_as_uint(most) << shortlist_column_bits;
        }
        *out = terms;
    }
    const int c = blockIdx.x * threads + threadIdx.x;
    if (c < means.k_padded) {
        const float norm2 = squared_norm(means.norm[c], rows.d);
        alpha[c] = c < means.k && means.norm[c] <= far
                ? 0.5f + ShortlistTerms::room + scale * (norm2 + x * x)
                : INFINITY;
    }
}

} // namespace

void launch_shortlist(
        const ShortlistInput& in,
        const ShortlistOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    const int d_padded = in.rows.d_padded;
    const auto launch =
            choose_assign_kernel(90, d_padded) == AssignKernel::sm90
            ? launch_shortlist_sm90
            : launch_shortlist_sm90_deep;
    FAISS_FLASH_CUDA_CHECK(launch(
            tensor_map(
                    in.rows.halves, in.rows.n, d_padded, assign_sm90_box_rows),
            tensor_map(
                    in.means, in.k_padded, d_padded, assign_sm90_box_columns),
            in,
            out,
            multiprocessors,
            stream));
}

cudaError_t launch_shortlist_columns(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        float* alpha,
        ShortlistTerms* terms,
        cudaStream_t stream) {
    shortlist_columns_kernel<<<
            (means.k_padded + threads - 1) / threads,
            threads,
            0,
            stream>>>(rows, means, alpha, terms);
    return cudaGetLastError();
}

} // namespace faiss_flash
