#pragma once

// Reductions over thread blocks that have a row each.

#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

/// The largest log density among components, and the lowest number that has
/// it.
struct Top {
    double value;
    int component;

    __device__ void see(double other, int number) {
        if (other > value || (other == value && number < component)) {
            value = other;
            component = number;
        }
    }
};

/// Over `threads` threads; all of them get it.
template <int threads>
__device__ Top block_top(Top mine) {
    __shared__ Top all[threads / 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const double value = __shfl_xor_sync(0xffffffff, mine.value, step);
        const int number = __shfl_xor_sync(0xffffffff, mine.component, step);
        mine.see(value, number);
    }
    __syncthreads(); // an earlier call's `all` has been read
    if (threadIdx.x % 32 == 0) {
        all[threadIdx.x / 32] = mine;
    }
    __syncthreads(); // all warps' tops are there
    for (int w = 0; w < threads / 32; w++) {
        mine.see(all[w].value, all[w].component);
    }
    return mine;
}

/// In the order of threads; all of them get it.
template <int threads>
__device__ double block_sum(double mine) {
    __shared__ double all[threads / 32];
    mine = warp_sum(mine);
    __syncthreads(); // an earlier call's `all` has been read
    if (threadIdx.x % 32 == 0) {
        all[threadIdx.x / 32] = mine;
    }
    __syncthreads(); // all warps' sums are there
    double sum = 0;
    for (int w = 0; w < threads / 32; w++) {
        sum += all[w];
    }
    return sum;
}

} // namespace faiss_flash
