#pragma once

// Kernels that give a row to as many threads as its list has parts.

#include <faiss_flash/cuda/mixture_list.cuh>

namespace faiss_flash {

/// Threads per row, one per part of its list.
constexpr int row_lanes = list_parts;

/// Sum, and maximum, over the threads of a row.
template <class T>
__device__ inline T row_sum(T value) {
#pragma unroll
    for (int step = row_lanes / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, step);
    }
    return value;
}
__device__ inline float row_max(float value) {
#pragma unroll
    for (int step = row_lanes / 2; step > 0; step /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, step));
    }
    return value;
}

} // namespace faiss_flash
