#pragma once

// Host side of the listing kernels. Everything runs on `stream`. They are
// chosen as the assignment kernels are, and read tensor maps of the same
// boxes; see assign_launch.h.

#include <cuda.h>
#include <cuda_runtime.h>

namespace faiss_flash {

struct ListInput;
struct ListOutput;
struct GroupOutput;
struct MaskOutput;

// Output: ListOutput, what each row lists; MaskOutput, the same as bits,
// without scores; or GroupOutput, the best score of each group of components,
// for which of in.limits only the norms are read.

/// Fills 4 of a row's list_parts. Needs compute capability 9.0 and
/// d_padded ≤ assign_sm90_max_d.
template <class Output>
cudaError_t launch_list_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const Output& out,
        int multiprocessors,
        cudaStream_t stream);

/// The same for any number of dimensions.
template <class Output>
cudaError_t launch_list_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const Output& out,
        int multiprocessors,
        cudaStream_t stream);

/// Any number of dimensions; fills 8 parts. Needs compute capability 8.0.
cudaError_t launch_list_sm80(
        const ListInput& in,
        const ListOutput& out,
        cudaStream_t stream);
cudaError_t launch_list_sm80(
        const ListInput& in,
        const GroupOutput& out,
        cudaStream_t stream);
cudaError_t launch_list_sm80(
        const ListInput& in,
        const MaskOutput& out,
        cudaStream_t stream);

} // namespace faiss_flash
