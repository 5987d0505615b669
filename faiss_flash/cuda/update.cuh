#pragma once

// Labels to sufficient statistics, without atomics.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace faiss_flash {

/// Rows per partial sum in single precision; partial sums are combined in
/// double precision.
constexpr int run_rows = 128;

/// Accumulators of a pass on the device; added to, never reset here.
struct DeviceStatistics {
    double* sums;   ///< Σ w x, (k, d)
    double* counts; ///< Σ w, (k)
    double* energy; ///< Σ w ‖x − c‖², (k); of a soft pass with a diagonal
                    ///< mixture Σ w (x − c)² per dimension, (k, d)
    double* products; ///< Σ x·c (products) or Σ ‖x − c‖² (l2), unweighted
    int64_t* members; ///< rows, (k)
};

/** The sizes of one update, all known to the host.
 *
 * Rows are cut into blocks of `block_rows`, and a run never crosses a block:
 * chunks of whole blocks, added one after the other, give the same bytes as
 * all rows at once.
 */
struct UpdatePlan {
    int64_t n; ///< rows of this update
    int64_t block_rows;
    int k, d;

    __host__ __device__ int64_t blocks() const {
        return (n + block_rows - 1) / block_rows;
    }
    /// bytes of scratch for update()
    size_t scratch_bytes() const;
};

/// Rows per block for k centroids: enough that segments are not tiny.
int64_t update_block_rows(int k);

/** Group rows by (block, label) with a stable radix sort, sum each run of up
 * to run_rows rows in single precision by one warp, and add the runs of a
 * centroid in order in double precision. The same bytes every time.
 *
 * Traffic: the rows once in single precision, plus 24 bytes a row and
 * 4·d bytes a run.
 *
 * @param x        (n, d)
 * @param weights  (n) or nullptr
 * @param labels   (n)
 * @param means    (k, d), the centroids the labels belong to
 */
cudaError_t update(
        const UpdatePlan& plan,
        const float* x,
        const float* weights,
        const uint32_t* labels,
        const float* means,
        bool l2,
        const DeviceStatistics& out,
        void* scratch,
        cudaStream_t stream);

} // namespace faiss_flash
