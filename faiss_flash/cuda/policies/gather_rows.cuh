#pragma once

#include <faiss_flash/cuda/assign.cuh>

namespace faiss_flash {

/// Some of a set of prepared rows, one after the other.
/// @param numbers  (count)
/// @param halves   (count, d_padded)
cudaError_t launch_gather_rows(
        const PreparedRows& from,
        int64_t count,
        const uint32_t* numbers,
        __half* halves,
        float* norm,
        float* error,
        cudaStream_t stream);

} // namespace faiss_flash
