#pragma once

#include <cuda_runtime.h>

#include <faiss_flash/cuda/assign.cuh>

namespace faiss_flash {

/// Centroids kept per unproved row; a row with more is compared with all.
constexpr int recheck_capacity = 8;

struct RecheckScratch {
    uint32_t* counts;     ///< (n), all 0 before and after
    uint32_t* candidates; ///< (n, recheck_capacity)
};

/** Settle the rows that the half-precision scores left open.
 *
 * First every centroid whose score is below the row's threshold is listed
 * (it holds the true best: the threshold is two errors above the smallest
 * score), then the listed ones are compared in double precision on the
 * original vectors; among equals the lowest number wins.
 *
 * @param x          (n, d), original rows
 * @param original   (k, d), original centroids
 */
cudaError_t launch_recheck(
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        const DeviceVectors& x,
        const float* original,
        const RecheckScratch& scratch,
        int multiprocessors,
        cudaStream_t stream);

} // namespace faiss_flash
