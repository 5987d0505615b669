#pragma once

// What listing needs of a mixture and of the rows: scores, thresholds, and
// how far both may be off.

#include <faiss_flash/cuda/mixture/list.cuh>

namespace faiss_flash {

/// log p(x, k) = log_scale − precision·‖x − μ_k‖²
struct ComponentTerms {
    double log_scale; ///< log π_k − (d/2) log(2π σ²_k)
    double precision; ///< 1 / (2σ²_k)
};

/// Largest of all components, for rows that are not typical.
struct ListBounds {
    float slack; ///< error of a typical row's score
    float norm, error, h, scale;
};

/// Scores of components for prepared rows; all on the device.
struct ListTerms {
    float2* columns;    ///< a, h of ListInput, (k_padded)
    float* slack;       ///< error that a allows for, (k_padded)
    ListBounds* bounds; ///< (1)
};

/** Columns of ListInput.
 * @param components  (k), or nullptr: the nearest centroids are looked for
 * @param scale       of the prepared rows and means, see Shift
 */
cudaError_t launch_list_terms(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ComponentTerms* components,
        bool l2,
        float scale,
        const ListTerms& out,
        cudaStream_t stream);

/** Thresholds: the score of one component per row, exact up to its error,
 * is a lower bound of the row's maximum.
 * @param labels  (n) any component, best a likely one
 * @param range   distance in nats from the maximum to the threshold
 * @param limits  (n)
 * @param rises   whether better components raise the threshold
 */
cudaError_t launch_row_limits(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const uint32_t* labels,
        float range,
        RowLimit* limits,
        cudaStream_t stream,
        bool rises = true);

/// The norms of limits alone: ‖x'‖² for distances, 0 for products.
cudaError_t launch_row_norms(
        const PreparedRows& rows,
        bool l2,
        RowLimit* limits,
        cudaStream_t stream);

/** Thresholds from the best scores of groups of centroids: a row's m-th
 * largest score is at least its m-th largest group's.
 * @param group_best  see GroupOutput
 * @param limits      (n) with norms
 */
cudaError_t launch_group_limits(
        const PreparedRows& rows,
        const ListTerms& terms,
        int m,
        const float* group_best,
        RowLimit* limits,
        cudaStream_t stream);

} // namespace faiss_flash
