#pragma once

// Host side of the assignment kernels. Everything runs on `stream`.

#include <cuda.h>
#include <cuda_runtime.h>

namespace faiss_flash {

struct PreparedRows;
struct PreparedCentroids;
struct AssignOutput;

/// Rows of up to this many dimensions stay in shared memory; longer ones go
/// through the deep kernel.
constexpr int assign_sm90_max_d = 128;
/// Boxes that their tensor maps describe: rows × 64 halves.
constexpr int assign_sm90_box_rows = 256;
constexpr int assign_sm90_box_columns = 128;

/// The kernels that assign rows. All take tiles of 128 centroids, by 256
/// rows (sm90) or 64 (sm80); README.md has their measurements and what other
/// shapes gave.
enum class AssignKernel {
    sm80,     ///< mma.sync: any device, any dimension
    sm90,     ///< wgmma, rows stay in shared memory
    sm90_deep ///< wgmma, rows are streamed like centroids
};
AssignKernel choose_assign_kernel(int capability, int d_padded);

/// Needs compute capability 9.0.
cudaError_t launch_assign_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int multiprocessors,
        cudaStream_t stream);

/// The same for any number of dimensions.
cudaError_t launch_assign_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int multiprocessors,
        cudaStream_t stream);

/// Needs compute capability 8.0.
cudaError_t launch_assign_sm80(
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        cudaStream_t stream);

} // namespace faiss_flash
