// The best of groups of centroids for Hopper where rows stay in shared memory.

#include <faiss_flash/cuda/pipeline_sm90.cuh>
#include <faiss_flash/cuda/policies/shortlist_sm90.cuh>

namespace faiss_flash {

cudaError_t launch_shortlist_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ShortlistInput& in,
        const ShortlistOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    const auto launch = in.costs
            ? sm90::launch_rows<sm90::ThreadShortlist<sm90::CostScores>>
            : sm90::launch_rows<sm90::ThreadShortlist<sm90::DistanceScores>>;
    return launch(rows_map, means_map, in, out, multiprocessors, stream);
}

} // namespace faiss_flash
