#pragma once

// Host side of the listing kernels. Everything runs on `stream`.

#include <cuda.h>
#include <cuda_runtime.h>

namespace faiss_flash {

struct ListInput;
struct ListOutput;
struct GroupOutput;

/// Rows of up to this many dimensions stay in shared memory.
constexpr int list_sm90_max_d = 128;

/// Boxes of the tensor maps are those of the assignment kernel. Fills 4 of
/// a row's list_parts. Needs compute capability 9.0 and d_padded ≤
/// list_sm90_max_d.
cudaError_t launch_list_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const ListOutput& out,
        int multiprocessors,
        cudaStream_t stream);

/// The same for any number of dimensions.
cudaError_t launch_list_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const ListOutput& out,
        int multiprocessors,
        cudaStream_t stream);

/// Any number of dimensions; fills 8 parts. Needs compute capability 8.0.
cudaError_t launch_list_sm80(
        const ListInput& in,
        const ListOutput& out,
        cudaStream_t stream);

/// The same kernels, with the best score of each group of components; of
/// in.limits only the norms are read.
cudaError_t launch_groups_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const GroupOutput& out,
        int multiprocessors,
        cudaStream_t stream);
cudaError_t launch_groups_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const GroupOutput& out,
        int multiprocessors,
        cudaStream_t stream);
cudaError_t launch_groups_sm80(
        const ListInput& in,
        const GroupOutput& out,
        cudaStream_t stream);

} // namespace faiss_flash
