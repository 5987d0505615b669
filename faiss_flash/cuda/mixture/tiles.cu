// Tiles of rows that share components: see mixture/tiles.cuh.

#include <faiss_flash/cuda/mixture/tile_sums.cuh>

namespace faiss_flash {

namespace {

using namespace tiles;

/// On their way to the second-level cache while masks are read.
__device__ __forceinline__ void prefetch_row(
        const MixtureRowsInput& in,
        uint32_t row) {
    constexpr int line = 32; // floats
    const float* x = in.x + (int64_t)row * in.d;
    for (int j = threadIdx.x % row_lanes * line; j < in.d;
         j += row_lanes * line) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(x + j));
    }
}

/// One tile a thread block; chunks: see PairRow.
template <bool aligned, int chunks, bool diagonal>
__global__ void __launch_bounds__(threads, 2) tiles_kernel(
        const TileInput in,
        const MixtureRowsOutput out,
        const TileItems items,
        const WideRows wide) {
    extern __shared__ uint4 raw[];
    Shared& s = *reinterpret_cast<Shared*>(raw);
    uint32_t* some = reinterpret_cast<uint32_t*>(&s + 1);
    const int words = in.masks.words;
    uint16_t* before = reinterpret_cast<uint16_t*>(some + words);
    const uint32_t tile = blockIdx.x, tiles = gridDim.x;
    const int warp = threadIdx.x / 32;
    const uint32_t first = tile * tile_rows;
    const int rows = min((int64_t)tile_rows, in.rows.n - first);
    if (threadIdx.x < rows) {
        // blocks of rows are powers of two
        s.rows[threadIdx.x] = (first & -(uint32_t)in.rows.block_rows) +
                in.order[first + threadIdx.x];
    }
    for (int w = threadIdx.x; w < words; w += threads) {
        some[w] = 0;
    }
    if (threadIdx.x == 0) {
        s.kept = 0;
        s.dropped = 0;
    }
    __syncthreads(); // row numbers are there

    const int i = threadIdx.x / row_lanes;
    if (i < rows) {
        prefetch_row(in.rows, s.rows[i]);
    }
    list_row(s, in.masks, i, i < rows);
    __syncthreads(); // counts are there
    if (warp == 0) {
        place_rows(s);
    }
    __syncthreads(); // rows' pairs have places
    pair_distances<aligned, chunks, diagonal>(s, in.rows);
    __syncthreads(); // distances are there; the lists have been read
    for_each_pair(s, [&](int p) {
        s.value[p] = log_density_of(
                in.rows, s.rows[s.row[p]], s.component[p], s.dist[p]);
#pragma unroll
        for (int w = 0; w < row_words; w++) {
            s.rows_of[p][w] = 0;
        }
    });
    __syncthreads(); // values are there
    const bool settled = settle_row(s, in.rows, out, i);
    if (threadIdx.x % row_lanes == 0 && i < rows) {
        wide.marks[s.rows[i]] = !settled;
    }
    __syncthreads(); // scales are there

    int kept = 0;
    for_each_pair(s, [&](int p) {
        const int r = s.row[p];
        const float share = s.share[p];
        const bool keep = share > 0 && share >= s.least[r];
        const float w = keep ? share * s.scale[r] : 0;
        kept += keep;
        s.share[p] = w;
        if (w > 0) {
            const MaskBit at = MaskBit::of(s.component[p]);
            atomicOr(some + at.word, 1u << at.bit);
        }
    });
    kept = __reduce_add_sync(0xffffffff, kept);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(&s.kept, kept);
    }
    __syncthreads(); // shares are there
    if (warp == 0) {
        rank_words(s, words, some, before);
    }
    uint32_t first_item = 0, first_vector = 0; // waited for later
    if (threadIdx.x == threads - 1) {
        first_item = atomicAdd(items.used, (unsigned long long)s.kept);
        atomicAdd(&out.totals->entries, (unsigned long long)s.kept);
        // mostly there is a larger one already
        float* dropped = &out.totals->dropped;
        if (s.dropped > *static_cast<volatile float*>(dropped)) {
            atomicMax(
                    reinterpret_cast<int*>(dropped),
                    __float_as_int(s.dropped));
        }
    }
    __syncthreads(); // ranks are there
    for_each_pair(s, [&](int p) {
        if (s.share[p] > 0) {
            const MaskBit at = MaskBit::of(s.component[p]);
            const int c = before[at.word] +
                    __popc(some[at.word] & bits_below(at.bit));
            const int r = s.row[p];
            if constexpr (diagonal) {
                s.id[c] = s.component[p];
            }
            s.component[p] = c;
            atomicOr(&s.rows_of[c][r / 32], 1u << (r % 32));
        }
    });
    __syncthreads(); // rows of components are there
    if (warp == 0) {
        const int vectors = place_components(s);
        if (threadIdx.x == 0) {
            first_vector =
                    atomicAdd(items.used + 1, (unsigned long long)vectors);
        }
    }
    __syncthreads(); // components' places are there
    sort_entries(
            s, in.rows.d / (aligned ? 4 : 1), first_item, first_vector);
    __syncthreads(); // entries are in order
    const int components = s.components;
#pragma unroll 1
    for (int c = threadIdx.x; c < components; c += threads) {
        write_single(s, items, c);
    }
    for (int c = warp; c < components; c += warps) {
        write_several<aligned, diagonal>(s, in.rows, items, c);
    }
    for (int w = threadIdx.x; w < words; w += threads) {
        const int64_t at = (int64_t)w * tiles + tile;
        items.bits[at] = some[w];
        items.first[at] = s.first_item + before[w];
    }
}

template <bool aligned, int chunks, bool diagonal>
cudaError_t launch(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const TileItems& items,
        const WideRows& wide,
        cudaStream_t stream) {
    const auto kernel = tiles_kernel<aligned, chunks, diagonal>;
    const int bytes = sizeof(Shared) + in.masks.words * 6;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const TileShape shape = {in.rows.n, in.rows.block_rows};
    kernel<<<shape.tiles(), threads, bytes, stream>>>(in, out, items, wide);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_tiles(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const TileItems& items,
        const WideRows& wide,
        cudaStream_t stream) {
    const cudaError_t error = cudaMemsetAsync(
            items.used, 0, 2 * sizeof(*items.used), stream);
    if (error != cudaSuccess) {
        return error;
    }
    const int d = in.rows.d;
    const bool aligned = d % 4 == 0 &&
            (reinterpret_cast<uintptr_t>(in.rows.x) |
             reinterpret_cast<uintptr_t>(in.rows.means) |
             reinterpret_cast<uintptr_t>(in.rows.half_precisions)) %
                            16 ==
                    0;
    const bool diagonal = in.rows.half_precisions;
    const auto launch_this = !aligned ? launch<false, 0, false>
            : d == 128                ? launch<true, 4, false>
            : d == 96                 ? launch<true, 3, false>
            : d == 64                 ? launch<true, 2, false>
            : d == 32                 ? launch<true, 1, false>
                                      : launch<true, 0, false>;
    const auto launch_diagonal = !aligned ? launch<false, 0, true>
            : d == 128                    ? launch<true, 4, true>
            : d == 96                     ? launch<true, 3, true>
                                          : launch<true, 0, true>;
    return (diagonal ? launch_diagonal : launch_this)(
            in, out, items, wide, stream);
}

} // namespace faiss_flash
