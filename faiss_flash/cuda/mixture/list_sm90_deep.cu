// Lists or masks of the components that matter, or bests of groups of them, for
// Hopper, any number of dimensions.

#include <faiss_flash/cuda/mixture/list.h>
#include <faiss_flash/cuda/mixture/sm90.cuh>
#include <faiss_flash/cuda/pipeline_sm90_deep.cuh>

namespace faiss_flash {

template <class Output>
cudaError_t launch_list_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    return sm90::launch_deep<sm90::ThreadEpilogue<Output>>(
            rows_map, means_map, in, out, multiprocessors, stream);
}

template cudaError_t launch_list_sm90_deep(
        const CUtensorMap&,
        const CUtensorMap&,
        const ListInput&,
        const ListOutput&,
        int,
        cudaStream_t);
template cudaError_t launch_list_sm90_deep(
        const CUtensorMap&,
        const CUtensorMap&,
        const ListInput&,
        const GroupOutput&,
        int,
        cudaStream_t);
template cudaError_t launch_list_sm90_deep(
        const CUtensorMap&,
        const CUtensorMap&,
        const ListInput&,
        const MaskOutput&,
        int,
        cudaStream_t);

} // namespace faiss_flash
