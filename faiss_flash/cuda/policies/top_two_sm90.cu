// Two best columns for Hopper where rows stay in shared memory.

#include <faiss_flash/cuda/pipeline_sm90.cuh>
#include <faiss_flash/cuda/policies/top_two_sm90.cuh>

namespace faiss_flash {

cudaError_t launch_top_two_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const TopTwoInput& in,
        const TopTwoOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    return sm90::launch_rows<sm90::ThreadTopTwo>(
            rows_map, means_map, in, out, multiprocessors, stream);
}

} // namespace faiss_flash
