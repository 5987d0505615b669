#include <faiss_flash/cuda/policies/gather_rows.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

/// One thread for 8 halves.
__global__ void gather_rows_kernel(
        const PreparedRows from,
        int64_t count,
        int pieces,
        const uint32_t* __restrict__ numbers,
        uint4* __restrict__ halves,
        float* __restrict__ norm,
        float* __restrict__ error) {
    const int64_t at = (int64_t)blockIdx.x * threads + threadIdx.x;
    const int64_t i = at / pieces;
    if (i >= count) {
        return;
    }
    const int piece = at % pieces;
    const int64_t row = numbers[i];
    halves[at] = __ldg(
            reinterpret_cast<const uint4*>(from.halves) + row * pieces +
            piece);
    if (piece == 0) {
        norm[i] = from.norm[row];
        error[i] = from.error[row];
    }
}

} // namespace

cudaError_t launch_gather_rows(
        const PreparedRows& from,
        int64_t count,
        const uint32_t* numbers,
        __half* halves,
        float* norm,
        float* error,
        cudaStream_t stream) {
    const int pieces = from.d_padded / 8;
    gather_rows_kernel<<<
            (count * pieces + threads - 1) / threads,
            threads,
            0,
            stream>>>(
            from,
            count,
            pieces,
            numbers,
            reinterpret_cast<uint4*>(halves),
            norm,
            error);
    return cudaGetLastError();
}

} // namespace faiss_flash
