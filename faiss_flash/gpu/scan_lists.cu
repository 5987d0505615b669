#include <faiss_flash/gpu/scan_lists.h>

#include <algorithm>

#include <faiss_flash/gpu/scan_tile.cuh>

namespace faiss_flash {

namespace {

/// Entries per tile so that all tiles of a list are about equal.
__device__ inline int tile_height(int64_t list_size, int tiles) {
    return ((int)((list_size + tiles - 1) / tiles) + 31) / 32 * 32;
}

__device__ inline bool aligned(const float* x, int d) {
    return d % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
}

/// The list that a tile belongs to: the last one that begins at or before it.
__device__ inline int list_of_tile(
        const uint64_t* begins,
        int nlist,
        uint32_t tile) {
    int low = 0, high = nlist;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if ((uint32_t)(begins[middle] >> 32) <= tile) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/// Blocks per multiprocessor. For products the compiler loads further ahead,
/// and four of the large tiles' blocks would spill.
constexpr int resident(bool inner_product, int query_warps) {
    return inner_product && query_warps > 1 ? 3 : 4;
}

template <CodeKind kind, bool inner_product, int per_warp, int query_warps>
__global__ void __launch_bounds__(
        scan_threads,
        resident(inner_product, query_warps))
        scan_tiles_kernel(
        ListsView lists,
        ProbesView probes,
        TilesView tiles,
        const float* __restrict__ x,
        float* __restrict__ scores) {
    using T = Tile<kind, inner_product, per_warp, query_warps>;
    __shared__ typename T::Shared shared;
    const bool x_quads = aligned(x, lists.d);
    const uint32_t all = tiles.begins[lists.nlist] >> 32;
    for (uint32_t tile = blockIdx.x; tile < all; tile += gridDim.x) {
        const int list = list_of_tile(tiles.begins, lists.nlist, tile);
        const uint32_t pair_begin = tiles.begins[list];
        const int pairs = (uint32_t)tiles.begins[list + 1] - pair_begin;
        const int64_t size = lists.begins[list + 1] - lists.begins[list];
        const int per_list = entry_tiles(size);
        const int height = tile_height(size, per_list);
        const int within = tile - (uint32_t)(tiles.begins[list] >> 32);
        const int first_pair = within / per_list * T::queries;
        const int64_t first = (int64_t)(within % per_list) * height;
        const int count = min(T::queries, pairs - first_pair);
        __syncthreads(); // the tile before is written
        for (int i = threadIdx.x; i < count; i += scan_threads) {
            const int pair = tiles.order[pair_begin + first_pair + i];
            const int64_t query = pair / probes.nprobe;
            shared.query[i] = x + query * lists.d;
            shared.scores[i] = scores + query * probes.stride +
                    probes.places[pair] + first;
        }
        const int entries = (int)max(
                (int64_t)0, min((int64_t)height, size - first));
        T::scan(shared,
                lists,
                list,
                lists.begins[list] + first,
                entries,
                count,
                x_quads);
    }
}

/// blockIdx.x: pair, blockIdx.y: the first of the list's tiles
template <CodeKind kind, bool inner_product>
__global__ void __launch_bounds__(scan_threads, 6) scan_pairs_kernel(
        ListsView lists,
        ProbesView probes,
        const float* __restrict__ x,
        float* __restrict__ scores) {
    using T = Tile<kind, inner_product, 1, 1>;
    __shared__ typename T::Shared shared;
    const int64_t pair = blockIdx.x;
    const int list = probes.lists[pair];
    if (list < 0) {
        return;
    }
    const int64_t query = pair / probes.nprobe;
    const int64_t size = lists.begins[list + 1] - lists.begins[list];
    const int per_list = entry_tiles(size);
    const int height = per_list ? tile_height(size, per_list) : 0;
    for (int tile = blockIdx.y; tile < per_list; tile += gridDim.y) {
        const int64_t first = (int64_t)tile * height;
        __syncthreads(); // the tile before is written
        if (threadIdx.x == 0) {
            shared.query[0] = x + query * lists.d;
            shared.scores[0] = scores + query * probes.stride +
                    probes.places[pair] + first;
        }
        const int entries = (int)max(
                (int64_t)0, min((int64_t)height, size - first));
        T::scan(shared,
                lists,
                list,
                lists.begins[list] + first,
                entries,
                1,
                aligned(x, lists.d));
    }
}

int multiprocessors() {
    int device = 0, count = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}

template <CodeKind kind, bool inner_product>
void launch(
        const ListsView& lists,
        const ProbesView& probes,
        const TilesView* tiles,
        const float* x,
        float* scores,
        cudaStream_t stream) {
    if (!tiles) {
        // enough blocks to fill the GPU where the pairs alone do not
        const int64_t pairs = probes.n * probes.nprobe;
        const int64_t most = std::max(1, entry_tiles(lists.longest));
        const int64_t wanted = 8 * multiprocessors() / pairs + 1;
        scan_pairs_kernel<kind, inner_product>
                <<<dim3(pairs, std::min<int64_t>({most, wanted, 65535})),
                   scan_threads,
                   0,
                   stream>>>(lists, probes, x, scores);
    } else if (tiles->queries_per_tile == 8) {
        scan_tiles_kernel<kind, inner_product, 8, 1>
                <<<8 * multiprocessors(), scan_threads, 0, stream>>>(
                        lists, probes, *tiles, x, scores);
    } else {
        scan_tiles_kernel<kind, inner_product, 8, 4>
                <<<8 * multiprocessors(), scan_threads, 0, stream>>>(
                        lists, probes, *tiles, x, scores);
    }
}

template <CodeKind kind>
void launch(
        const ListsView& lists,
        const ProbesView& probes,
        const TilesView* tiles,
        const float* x,
        bool inner_product,
        float* scores,
        cudaStream_t stream) {
    if (inner_product) {
        launch<kind, true>(lists, probes, tiles, x, scores, stream);
    } else {
        launch<kind, false>(lists, probes, tiles, x, scores, stream);
    }
}

} // namespace

cudaError_t scan_lists(
        const ListsView& lists,
        const ProbesView& probes,
        const TilesView* tiles,
        const float* x,
        bool inner_product,
        float* scores,
        cudaStream_t stream) {
    if (!tiles && scans_by_tables(lists)) {
        return scan_tables(lists, probes, x, inner_product, scores, stream);
    }
    auto run = [&](auto kind) {
        launch<decltype(kind)::value>(
                lists, probes, tiles, x, inner_product, scores, stream);
    };
    switch (lists.kind) {
#define FAISS_FLASH_SCAN(kind)                                         \
    case CodeKind::kind:                                               \
        run(std::integral_constant<CodeKind, CodeKind::kind>());       \
        break;
        FAISS_FLASH_SCAN(fp32)
        FAISS_FLASH_SCAN(fp16)
        FAISS_FLASH_SCAN(bf16)
        FAISS_FLASH_SCAN(sq8)
        FAISS_FLASH_SCAN(sq6)
        FAISS_FLASH_SCAN(sq4)
        FAISS_FLASH_SCAN(pq8)
        FAISS_FLASH_SCAN(pq)
#undef FAISS_FLASH_SCAN
    }
    return cudaGetLastError();
}

} // namespace faiss_flash
