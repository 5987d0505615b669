#include <faiss_flash/gpu/scan_lists.h>

#include <algorithm>

#include <faiss_flash/gpu/decode.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 128;
constexpr int chunk = 32;      // components in shared memory at a time
constexpr int row = chunk + 4; // rows start 4 banks apart: no conflicts

/** Queries × entries of one list.
 *
 * A warp has `per_warp` queries; `query_warps` warps have different ones and
 * the others other entries. A lane has `query_warps` entries, 32 apart.
 */
template <CodeKind kind, bool inner_product, int per_warp, int query_warps>
class Tile {
   public:
    static constexpr int queries = per_warp * query_warps;

    struct Shared {
        float x[queries][row];
        float v[tile_entries][row];
        const float* query[queries];
        float* scores[queries];
    };

    /// Scores of `count` queries and `entries` entries of the list from
    /// `first` on; shared.query and shared.scores (for entry `first`) are set,
    /// and everybody has seen them.
    __device__ static void scan(
            Shared& shared,
            const ListsView& lists,
            int64_t list,
            int64_t first,
            int entries,
            int count,
            bool x_quads) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const int first_query = warp % query_warps * per_warp;
        const int first_entry = warp / query_warps * 32 * query_warps;
        const int live = first_query < count
                ? min(query_warps, (entries - first_entry + 31) / 32)
                : 0;
        float sums[per_warp][query_warps] = {};
        for (int dim = 0; dim < lists.d; dim += chunk) {
            __syncthreads(); // the chunk before is used up
            load(shared, lists, list, first, entries, count, dim, x_quads);
            __syncthreads(); // this one is there
            const int steps = (min(chunk, lists.d - dim) + 3) / 4;
            add<query_warps>(
                    shared, first_query, first_entry + lane, steps, live, sums);
        }
#pragma unroll
        for (int q = 0; q < per_warp; q++) {
            if (first_query + q < count) {
                float* scores = shared.scores[first_query + q];
#pragma unroll
                for (int i = 0; i < query_warps; i++) {
                    const int entry = first_entry + 32 * i + lane;
                    if (entry < entries) {
                        scores[entry] = inner_product ? -sums[q][i]
                                                      : sums[q][i];
                    }
                }
            }
        }
    }

   private:
    __device__ static void load(
            Shared& shared,
            const ListsView& lists,
            int64_t list,
            int64_t first,
            int entries,
            int count,
            int dim,
            bool x_quads) {
        const int column = threadIdx.x % (chunk / 4) * 4;
        const Decoder<kind> decode(lists, list, dim + column);
        const uint8_t* code = lists.codes + first * lists.code_size;
#pragma unroll 4
        for (int i = threadIdx.x / (chunk / 4); i < entries;
             i += threads / (chunk / 4)) {
            *reinterpret_cast<float4*>(&shared.v[i][column]) =
                    decode(code + (int64_t)i * lists.code_size);
        }
        for (int i = threadIdx.x / (chunk / 4); i < queries;
             i += threads / (chunk / 4)) {
            *reinterpret_cast<float4*>(&shared.x[i][column]) = i < count
                    ? load4(shared.query[i], dim + column, lists.d, x_quads)
                    : make_float4(0, 0, 0, 0);
        }
    }

    /// One chunk; as many of the lane's entries as are live, the rest of
    /// `sums` stays.
    template <int most>
    __device__ static void add(
            const Shared& shared,
            int first_query,
            int entry,
            int steps,
            int live,
            float (&sums)[per_warp][query_warps]) {
        if constexpr (most > 1) {
            if (live < most) {
                add<most - 1>(shared, first_query, entry, steps, live, sums);
                return;
            }
        }
        if (live < 1) {
            return;
        }
#pragma unroll 2
        for (int step = 0; step < steps; step++) {
            float4 v[most];
#pragma unroll
            for (int i = 0; i < most; i++) {
                v[i] = *reinterpret_cast<const float4*>(
                        &shared.v[entry + 32 * i][4 * step]);
            }
#pragma unroll
            for (int q = 0; q < per_warp; q++) {
                const float4 x = *reinterpret_cast<const float4*>(
                        &shared.x[first_query + q][4 * step]);
#pragma unroll
                for (int i = 0; i < most; i++) {
                    float& sum = sums[q][i];
                    sum = add_term(sum, x.x, v[i].x);
                    sum = add_term(sum, x.y, v[i].y);
                    sum = add_term(sum, x.z, v[i].z);
                    sum = add_term(sum, x.w, v[i].w);
                }
            }
        }
    }

    __device__ static float add_term(float sum, float x, float v) {
        if (inner_product) {
            return fmaf(x, v, sum);
        }
        const float difference = x - v;
        return fmaf(difference, difference, sum);
    }
};

/// Entries per tile so that all tiles of a list are about equal.
__device__ inline int tile_height(int64_t list_size, int tiles) {
    return ((int)((list_size + tiles - 1) / tiles) + 31) / 32 * 32;
}

__device__ inline bool aligned(const float* x, int d) {
    return d % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
}

/// The list that a tile belongs to: the last one that begins at or before it.
__device__ inline int64_t list_of_tile(
        const uint64_t* begins,
        int64_t nlist,
        uint32_t tile) {
    int64_t low = 0, high = nlist;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if ((uint32_t)(begins[middle] >> 32) <= tile) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/// Blocks per multiprocessor that registers leave room for.
constexpr int resident(int query_warps) {
    return query_warps == 1 ? 5 : 4;
}

template <CodeKind kind, bool inner_product, int per_warp, int query_warps>
__global__ void __launch_bounds__(threads, resident(query_warps))
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
        const int64_t list = list_of_tile(tiles.begins, lists.nlist, tile);
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
        for (int i = threadIdx.x; i < count; i += threads) {
            const int pair = tiles.order[pair_begin + first_pair + i];
            const int64_t query = pair / probes.nprobe;
            shared.query[i] = x + query * lists.d;
            shared.scores[i] =
                    scores + query * probes.stride + probes.places[pair] + first;
        }
        // scan() begins with a barrier, so these are seen
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
__global__ void __launch_bounds__(threads, 8) scan_pairs_kernel(
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
            shared.scores[0] =
                    scores + query * probes.stride + probes.places[pair] + first;
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
        const int64_t most = entry_tiles(probes.stride);
        const int64_t wanted = 8 * multiprocessors() / pairs + 1;
        scan_pairs_kernel<kind, inner_product>
                <<<dim3(pairs, std::min<int64_t>({most, wanted, 65535})),
                   threads,
                   0,
                   stream>>>(lists, probes, x, scores);
    } else if (tiles->queries_per_tile == 8) {
        scan_tiles_kernel<kind, inner_product, 8, 1>
                <<<8 * multiprocessors(), threads, 0, stream>>>(
                        lists, probes, *tiles, x, scores);
    } else {
        scan_tiles_kernel<kind, inner_product, 8, 4>
                <<<8 * multiprocessors(), threads, 0, stream>>>(
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
