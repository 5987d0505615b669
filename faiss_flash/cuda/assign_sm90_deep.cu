// Fused distance and argmin for Hopper where rows are streamed.

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/assign_sm90.cuh>
#include <faiss_flash/cuda/pipeline_sm90_deep.cuh>

namespace faiss_flash {

cudaError_t launch_assign_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    return sm90::launch_deep<sm90::BestTwo>(
            rows_map,
            centroids_map,
            {rows, centroids},
            out,
            multiprocessors,
            stream);
}

} // namespace faiss_flash
