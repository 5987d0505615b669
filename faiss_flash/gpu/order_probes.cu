#include <faiss_flash/gpu/order_probes.h>

#include <cub/block/block_scan.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 128, warps = threads / 32;

/// One warp per query.
__global__ void __launch_bounds__(threads) place_probes_kernel(
        ListsView view,
        int64_t n,
        int nprobe,
        int64_t stride,
        const int64_t* __restrict__ found,
        int* __restrict__ lists,
        uint32_t* __restrict__ places,
        uint32_t* __restrict__ counts) {
    const int64_t query = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (query >= n) {
        return;
    }
    int64_t before = 0; // candidates of the probes before these 32
    uint32_t count = 0; // of the probes that this lane has seen to fit
    for (int first = 0; first < nprobe; first += 32) {
        const int probe = first + lane;
        const int64_t at = query * nprobe + probe;
        int64_t list = probe < nprobe ? found[at] : -1;
        list = list < view.nlist ? list : -1;
        const int64_t size =
                list >= 0 ? view.begins[list + 1] - view.begins[list] : 0;
        int64_t end = size;
        for (int step = 1; step < 32; step *= 2) {
            const int64_t left = __shfl_up_sync(0xffffffff, end, step);
            end += lane >= step ? left : 0;
        }
        const int64_t all = __shfl_sync(0xffffffff, end, 31);
        end += before;
        before += all;
        // ends grow, so it is the first probes that fit
        const bool fits = end <= stride;
        count = fits ? (uint32_t)end : count;
        if (probe < nprobe) {
            lists[at] = fits && size > 0 ? (int)list : -1;
            places[at] = (uint32_t)min(stride, end - size);
        }
    }
    count = __reduce_max_sync(0xffffffff, count);
    if (lane == 0) {
        counts[query] = count;
    }
}

/// Pairs of each list, and which of them each pair is.
__global__ void __launch_bounds__(threads) count_pairs_kernel(
        int64_t pairs,
        const int* __restrict__ lists,
        int* __restrict__ loads,
        int* __restrict__ ranks) {
    const int64_t pair = (int64_t)blockIdx.x * threads + threadIdx.x;
    if (pair < pairs && lists[pair] >= 0) {
        ranks[pair] = atomicAdd(&loads[lists[pair]], 1);
    }
}

constexpr int plan_threads = 512, lists_per_thread = 4;

/// One block: running sums over the lists.
__global__ void __launch_bounds__(plan_threads) plan_tiles_kernel(
        ListsView view,
        int queries_per_tile,
        const int* __restrict__ loads,
        uint64_t* __restrict__ begins) {
    using Scan = cub::BlockScan<uint64_t, plan_threads>;
    __shared__ typename Scan::TempStorage storage;
    uint64_t before = 0;
    for (int64_t first = 0; first < view.nlist;
         first += plan_threads * lists_per_thread) {
        const int64_t mine = first + threadIdx.x * lists_per_thread;
        uint64_t sums[lists_per_thread];
        for (int i = 0; i < lists_per_thread; i++) {
            sums[i] = 0;
            if (mine + i < view.nlist) {
                const int load = loads[mine + i];
                const uint64_t tiles = (uint64_t)entry_tiles(
                                               view.begins[mine + i + 1] -
                                               view.begins[mine + i]) *
                        ((load + queries_per_tile - 1) / queries_per_tile);
                sums[i] = tiles << 32 | (uint32_t)load;
            }
        }
        uint64_t all;
        Scan(storage).ExclusiveSum(sums, sums, all);
        for (int i = 0; i < lists_per_thread; i++) {
            if (mine + i < view.nlist) {
                begins[mine + i] = before + sums[i];
            }
        }
        before += all;
        __syncthreads(); // storage is used again
    }
    if (threadIdx.x == 0) {
        begins[view.nlist] = before;
    }
}

__global__ void __launch_bounds__(threads) order_pairs_kernel(
        int64_t pairs,
        const int* __restrict__ lists,
        const int* __restrict__ ranks,
        const uint64_t* __restrict__ begins,
        int* __restrict__ order) {
    const int64_t pair = (int64_t)blockIdx.x * threads + threadIdx.x;
    if (pair < pairs && lists[pair] >= 0) {
        order[(uint32_t)begins[lists[pair]] + ranks[pair]] = (int)pair;
    }
}

} // namespace

cudaError_t place_probes(
        const ListsView& view,
        int64_t n,
        int nprobe,
        int64_t stride,
        const int64_t* found,
        int* lists,
        uint32_t* places,
        uint32_t* counts,
        cudaStream_t stream) {
    place_probes_kernel<<<(n + warps - 1) / warps, threads, 0, stream>>>(
            view, n, nprobe, stride, found, lists, places, counts);
    return cudaGetLastError();
}

cudaError_t order_probes(
        const ListsView& view,
        const ProbesView& probes,
        int queries_per_tile,
        int* loads,
        int* ranks,
        uint64_t* begins,
        int* order,
        cudaStream_t stream) {
    const int64_t pairs = probes.n * probes.nprobe;
    const int64_t blocks = (pairs + threads - 1) / threads;
    const cudaError_t error =
            cudaMemsetAsync(loads, 0, view.nlist * sizeof(int), stream);
    if (error != cudaSuccess) {
        return error;
    }
    count_pairs_kernel<<<blocks, threads, 0, stream>>>(
            pairs, probes.lists, loads, ranks);
    plan_tiles_kernel<<<1, plan_threads, 0, stream>>>(
            view, queries_per_tile, loads, begins);
    order_pairs_kernel<<<blocks, threads, 0, stream>>>(
            pairs, probes.lists, ranks, begins, order);
    return cudaGetLastError();
}

} // namespace faiss_flash
