#pragma once

// The m best of each row's list.

#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

/// Label of a row that has to be looked at elsewhere: it has no list.
constexpr int64_t not_answered = -2;

/** Entries of each row by weight, largest first, the lowest component among
 * equals; those of weight 0 do not count.
 * @param entries, components  see EntryArrays
 * @param labels, values       (n, m); −1 and 0 where a row has fewer
 */
cudaError_t launch_top_entries(
        int64_t n,
        int m,
        const uint64_t* places,
        const WeightedRow* entries,
        const uint32_t* components,
        int64_t* labels,
        float* values,
        cudaStream_t stream);

/** Listed centroids of each row by distance or product, best first, the
 * lowest number among equals; computed in double precision.
 * @param labels, values  (n, m); a list is shorter than m only where
 *                        something overflowed: the row is not answered
 */
cudaError_t launch_top_listed(
        int64_t n,
        int m,
        int d,
        bool l2,
        const float* x,
        const float* means,
        const uint64_t* places,
        const uint32_t* components,
        int64_t* labels,
        float* values,
        cudaStream_t stream);

} // namespace faiss_flash
