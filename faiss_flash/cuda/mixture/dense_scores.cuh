#pragma once

// What the kernels that score dense rows share.

#include <faiss_flash/cuda/mixture/dense_products.cuh>

namespace faiss_flash {

constexpr DenseFound nothing_found = {-3e38f, 0, 0x7fffffff};

/// `component`s come in ascending order. NaN is not seen.
__device__ inline void see_score(
        DenseFound& row,
        float score,
        int component) {
    const bool better = score > row.top;
    row.top = better ? score : row.top;
    row.best = better ? component : row.best;
}

__device__ inline void merge_found(DenseFound& row, const DenseFound& other) {
    const float larger = fmaxf(row.top, other.top);
    row.sum = row.sum * expf(row.top - larger) +
            other.sum * expf(other.top - larger);
    row.best = other.top > row.top ||
                    (other.top == row.top && other.best < row.best)
            ? other.best
            : row.best;
    row.top = larger;
}

/// Of the four threads that share a row.
__device__ inline void merge_lanes(DenseFound& row) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        DenseFound other;
        other.top = __shfl_xor_sync(0xffffffff, row.top, step);
        other.sum = __shfl_xor_sync(0xffffffff, row.sum, step);
        other.best = __shfl_xor_sync(0xffffffff, row.best, step);
        merge_found(row, other);
    }
}

} // namespace faiss_flash
