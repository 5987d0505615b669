// Two best columns for Hopper, any number of dimensions.

#include <faiss_flash/cuda/pipeline_sm90_deep.cuh>
#include <faiss_flash/cuda/policies/top_two_sm90.cuh>

namespace faiss_flash {

cudaError_t launch_top_two_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const TopTwoInput& in,
        const TopTwoOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    return sm90::launch_deep<sm90::ThreadTopTwo>(
            rows_map, means_map, in, out, multiprocessors, stream);
}

} // namespace faiss_flash
