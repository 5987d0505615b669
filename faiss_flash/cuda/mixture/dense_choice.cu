// Which components and which rows go through matrix products.

#include <faiss_flash/cuda/mixture/dense_products.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// Components whose bound allows for rows of this many times the usual norm
/// go through products.
constexpr double norm_margin = 1.5;

constexpr int choice_threads = 1024;

/// Over all threads, which all get it.
__device__ double sum_of_all(double mine) {
    __shared__ double all[choice_threads / 32];
    mine = warp_sum(mine);
    if (threadIdx.x % 32 == 0) {
        all[threadIdx.x / 32] = mine;
    }
    __syncthreads(); // all warps' sums are there
    double sum = 0;
    for (int w = 0; w < choice_threads / 32; w++) {
        sum += all[w];
    }
    return sum;
}

/// One thread block; k ≤ dense_products_max_k.
__global__ void __launch_bounds__(choice_threads) choose_kernel(
        const MixtureRowsInput in,
        const DenseProducts products) {
    constexpr int per_thread = dense_products_max_k / choice_threads;
    __shared__ uint32_t before[choice_threads / 32];
    __shared__ float smallest[choice_threads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    double reach[per_thread], norm2 = 0;
#pragma unroll
    for (int i = 0; i < per_thread; i++) {
        // neighbours belong to the same thread: the list is ascending
        const int c = threadIdx.x * per_thread + i;
        reach[i] = INFINITY;
        if (c < in.k) {
            const double2 found = products.reach[c];
            reach[i] = found.x;
            norm2 += found.y;
        }
    }
    const double least = norm_margin * sqrt(sum_of_all(norm2));
    float largest = 60000; // halves reach 65504
    uint32_t mine = 0;
#pragma unroll
    for (int i = 0; i < per_thread; i++) {
        if (reach[i] >= least) {
            largest = fminf(largest, __double2float_rd(reach[i]));
        } else { // also where something is NaN
            mine++;
        }
    }
    uint32_t end = mine;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(0xffffffff, end, step);
        end += lane >= step ? other : 0;
        largest = fminf(
                largest, __shfl_xor_sync(0xffffffff, largest, step));
    }
    if (lane == 31) {
        before[warp] = end;
        smallest[warp] = largest;
    }
    __syncthreads(); // every warp's are there
    uint32_t at = end - mine, all = 0;
    for (int w = 0; w < choice_threads / 32; w++) {
        at += w < warp ? before[w] : 0;
        all += before[w];
        largest = fminf(largest, smallest[w]);
    }
#pragma unroll
    for (int i = 0; i < per_thread; i++) {
        const int c = threadIdx.x * per_thread + i;
        if (c < in.k && !(reach[i] >= least)) {
            products.excluded[at++] = c;
            products.columns[c] = make_float2(-INFINITY, 0);
        }
    }
    if (threadIdx.x == 0) {
        *products.choice = {largest, all};
    }
}

constexpr int split_threads = 1024;

/// One thread block per block of rows, a part of its rows per warp.
__global__ void __launch_bounds__(split_threads) split_dense_kernel(
        const MixtureRowsInput in,
        const float* __restrict__ norm,
        const DenseChoice* choice,
        int most,
        const uint2* counts,
        const uint32_t* rows,
        uint32_t* to,
        uint2* split) {
    __shared__ uint32_t hard_of[split_threads / 32];
    const uint32_t count = counts[blockIdx.x].x;
    if (count <= most) {
        return; // not dense
    }
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t first = blockIdx.x * in.block_rows;
    rows += first;
    to += first;
    const float largest = choice->largest_norm;
    const uint32_t per_warp =
            (count + split_threads - 1) / split_threads * 32;
    const uint32_t i0 = min(warp * per_warp, count);
    const uint32_t i1 = min(i0 + per_warp, count);
    auto is_hard = [&](uint32_t row) { // also where it is NaN
        return !(norm[row] <= largest);
    };
    uint32_t hard = 0;
    for (uint32_t i = i0 + lane; i < i1; i += 32) {
        hard += is_hard(rows[i]);
    }
    hard = __reduce_add_sync(0xffffffff, hard);
    if (lane == 0) {
        hard_of[warp] = hard;
    }
    __syncthreads(); // every warp's count is there
    uint32_t hard_at = 0, all_hard = 0;
    for (int w = 0; w < split_threads / 32; w++) {
        hard_at += w < warp ? hard_of[w] : 0;
        all_hard += hard_of[w];
    }
    const uint32_t easy = count - all_hard;
    uint32_t easy_at = i0 - hard_at;
    hard_at += easy;
    for (uint32_t i = i0; i < i1; i += 32) {
        const bool real = i + lane < i1;
        const uint32_t row = real ? rows[i + lane] : 0;
        const bool is = real && is_hard(row);
        const uint32_t easy_lanes = __ballot_sync(0xffffffff, real && !is);
        const uint32_t hard_lanes = __ballot_sync(0xffffffff, is);
        const uint32_t below = (1u << lane) - 1;
        if (real) {
            to[is ? hard_at + __popc(hard_lanes & below)
                  : easy_at + __popc(easy_lanes & below)] = row;
        }
        easy_at += __popc(easy_lanes);
        hard_at += __popc(hard_lanes);
    }
    if (threadIdx.x == 0) {
        split[blockIdx.x] = make_uint2(easy, all_hard);
    }
}

} // namespace

cudaError_t launch_choose_components(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        cudaStream_t stream) {
    choose_kernel<<<1, choice_threads, 0, stream>>>(in, products);
    return cudaGetLastError();
}

cudaError_t launch_split_dense(
        const MixtureRowsInput& in,
        const float* norm,
        const DenseChoice* choice,
        int most,
        const uint2* counts,
        const uint32_t* rows,
        uint32_t* to,
        uint2* split,
        cudaStream_t stream) {
    split_dense_kernel<<<
            (in.n + in.block_rows - 1) / in.block_rows,
            split_threads,
            0,
            stream>>>(in, norm, choice, most, counts, rows, to, split);
    return cudaGetLastError();
}

} // namespace faiss_flash
