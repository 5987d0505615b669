#pragma once

// What the kernels that score dense rows share.

#include <faiss_flash/cuda/mixture/dense_products.cuh>

namespace faiss_flash {

constexpr DenseFound nothing_found = {-3e38f, 0, 0x7fffffff};

/** Where the scores of 16 rows and 16 components are on sm_90, together: of
 * rows r and r + 8 and components 2q and 2q + 1 four in a row (components
 * first), at (r % 2) · 128 + q · 16 + r / 2 · 4. So threads write what products
 * leave them and read what products take, 16 bytes each and next to each other.
 * @param row, component  multiples of 16
 */
__device__ inline int64_t score_place(
        int64_t row,
        int component,
        int k_padded) {
    return row * k_padded + component * 16;
}

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
