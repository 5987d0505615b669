#include <faiss_flash/gpu/unique_results.h>

namespace faiss_flash {

namespace {

constexpr int warps = 4; // per block, one query each

__global__ void __launch_bounds__(32 * warps) first_of_each_id_kernel(
        int64_t n,
        int fetched,
        int k,
        const float* __restrict__ found_distances,
        const int64_t* __restrict__ found_labels,
        float nothing,
        float* __restrict__ distances,
        int64_t* __restrict__ labels) {
    extern __shared__ int64_t all_kept[];
    int64_t* kept = all_kept + threadIdx.x / 32 * k; // this query's, so far
    const int lane = threadIdx.x % 32;
    const int64_t query = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    if (query >= n) {
        return;
    }
    int count = 0;
    for (int first = 0; first < fetched && count < k; first += 32) {
        const int i = first + lane;
        const int64_t at = query * fetched + i;
        const int64_t id = i < fetched ? found_labels[at] : -1;
        // the lowest lane of those with this id
        const unsigned same = __match_any_sync(0xffffffff, id);
        bool is_new = id >= 0 && __ffs(same) - 1 == lane;
        for (int j = 0; j < count; j++) {
            is_new = is_new && kept[j] != id;
        }
        const unsigned news = __ballot_sync(0xffffffff, is_new);
        const int place = count + __popc(news & ((1u << lane) - 1));
        if (is_new && place < k) {
            kept[place] = id;
            labels[query * k + place] = id;
            distances[query * k + place] = found_distances[at];
        }
        count = min(count + __popc(news), k);
        __syncwarp(); // kept ids are there
    }
    for (int j = count + lane; j < k; j += 32) {
        labels[query * k + j] = -1;
        distances[query * k + j] = nothing;
    }
}

} // namespace

cudaError_t first_of_each_id(
        int64_t n,
        int fetched,
        int k,
        const float* found_distances,
        const int64_t* found_labels,
        float nothing,
        float* distances,
        int64_t* labels,
        cudaStream_t stream) {
    const int bytes = warps * k * sizeof(int64_t);
    const cudaError_t error = cudaFuncSetAttribute(
            first_of_each_id_kernel,
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            warps * unique_results_max * sizeof(int64_t));
    if (error != cudaSuccess) {
        return error;
    }
    first_of_each_id_kernel<<<(n + warps - 1) / warps, 32 * warps, bytes, stream>>>(
            n,
            fetched,
            k,
            found_distances,
            found_labels,
            nothing,
            distances,
            labels);
    return cudaGetLastError();
}

} // namespace faiss_flash
