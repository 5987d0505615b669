#pragma once

// Kernels that give a row to a few threads.

#include <faiss_flash/cuda/mixture/list.cuh>

namespace faiss_flash {

/// Sum, and maximum, over the `lanes` threads of a row.
template <int lanes, class T>
__device__ inline T row_sum(T value) {
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, step);
    }
    return value;
}
template <int lanes>
__device__ inline float row_max(float value) {
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, step));
    }
    return value;
}

} // namespace faiss_flash
