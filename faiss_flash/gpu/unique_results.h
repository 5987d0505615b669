#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace faiss_flash {

/// Longest result lists that first_of_each_id() takes: FAISS's own bound.
constexpr int unique_results_max = 2048;

/** The first k distinct ids of every query's results, in their order.
 *
 * One warp per query; it stops as soon as k are found. At most fetched·k/32
 * comparisons per lane. All pointers on the device.
 *
 * @param found_distances  (n, fetched), best first
 * @param found_labels     (n, fetched), −1 where there is no result
 * @param distances        (n, k); where there are fewer, `nothing`
 * @param labels           (n, k); where there are fewer, −1
 */
cudaError_t first_of_each_id(
        int64_t n,
        int fetched,
        int k,
        const float* found_distances,
        const int64_t* found_labels,
        float nothing,
        float* distances,
        int64_t* labels,
        cudaStream_t stream);

} // namespace faiss_flash
