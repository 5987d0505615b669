// Tiles of rows that share components: see mixture/tiles.cuh.

#include <faiss_flash/cuda/mixture/tile_pairs.cuh>
#include <faiss_flash/cuda/mixture/tile_shares.cuh>
#include <faiss_flash/cuda/mixture/tile_sums.cuh>

namespace faiss_flash {

namespace {

using namespace tiles;

/// One tile a thread block; chunks: of 32 columns of a row that is staged in
/// shared memory, 0: rows are read where they are.
template <bool aligned, int chunks, bool diagonal>
__global__ void __launch_bounds__(threads, 2) tiles_kernel(
        const TileInput in,
        const MixtureRowsOutput out,
        const TileItems items,
        const WideRows wide) {
    extern __shared__ uint4 raw[];
    using Shared = typename Parts<chunks>::Shared;
    Shared& s = *reinterpret_cast<Shared*>(raw);
    const int words = in.masks.words;
    const auto parts = Parts<chunks>::of(s, words);
    uint32_t* const some = parts.some;
    uint16_t* const before = parts.before;
    const uint32_t tile = blockIdx.x, tiles = gridDim.x;
    const int warp = threadIdx.x / 32;
    const uint32_t width = in.rows.d / (aligned ? 4 : 1); // of a row
    const uint32_t first = tile * tile_rows;
    const int rows = min((int64_t)tile_rows, in.rows.n - first);
    if (const int t = threadIdx.x; t < tile_rows) {
        // blocks of rows are powers of two
        const uint32_t row = t < rows
                ? (first & -(uint32_t)in.rows.block_rows) + in.order[first + t]
                : 0;
        s.rows[t] = row;
        s.top[t] = INT_MIN;
        s.best[t] = UINT32_MAX;
        s.sum[t] = s.listed[t] = s.lost[t] = 0;
    }
    for (int c = threadIdx.x; c < Shared::most; c += threads) {
        *reinterpret_cast<uint4*>(s.rows_of[c]) = make_uint4(0, 0, 0, 0);
    }
    for (int w = threadIdx.x; w < words; w += threads) {
        some[w] = 0;
    }
    if (threadIdx.x == 0) {
        s.kept = 0;
        if constexpr (bulk_copies) {
            ptx::mbarrier_init(&s.staged, 1);
            ptx::fence_barrier_init();
        }
    }
    __syncthreads(); // row numbers are there

    if constexpr (chunks > 0) {
        stage_rows<aligned, chunks>(s, in.rows, rows, parts.staged);
    }
    float threshold = 0; // waited for when masks have been read
    uint32_t near = 0;
    if (const int t = threadIdx.x; t < tile_rows) {
        threshold = in.limits[s.rows[t]].threshold;
        near = in.masks.near[s.rows[t]];
    }
    const int row = threadIdx.x / row_lanes;
    const int mine = count_row(s, in.masks, row, row < rows);
    if (const int t = threadIdx.x; t < tile_rows) {
        s.threshold[t] = threshold;
        s.near[t] = near;
    }
    __syncthreads(); // counts are there
    if (warp == 0) {
        place_rows(s);
    }
    __syncthreads(); // rows' pairs have places
    find_pairs(s, in.masks, row, mine);
    if (threadIdx.x == threads - 1) {
        s.first_item =
                atomicAdd(items.used, (unsigned long long)s.pairs());
    }
    __syncthreads(); // pairs are there
    order_pairs(s, words, some, before);
    if (threadIdx.x == threads - 1) {
        s.first_vector = atomicAdd(
                items.used + 1,
                (unsigned long long)s.place_of(s.components).vector());
    }
    if constexpr (chunks > 0) {
        wait_for_rows<aligned>(s);
    }
    __syncthreads(); // pairs are in order, and rows are there

    pair_distances<aligned, chunks, diagonal>(s, in.rows, parts.staged);
    __syncthreads(); // distances are there
    pair_values(s, in.rows);
    __syncthreads(); // densities are there
    pair_shares(s, in.rows);
    __syncthreads(); // shares are there
    if (const int i = threadIdx.x; i < rows) {
        const bool settled = settle_row(s, in.rows, out, i);
        wide.marks[s.rows[i]] = settled ? WideRows::no
                : s.count[i] > 0        ? WideRows::everything
                                        : WideRows::listed;
    }
    __syncthreads(); // rows are settled
    pair_responsibilities(
            s, chunks > 0, chunks > 0 ? Parts<chunks>::stride : width);
    __syncthreads(); // responsibilities are there

    if (warp == 0) {
        write_totals(s, rows, out.totals);
    }
    const int components = s.components;
#pragma unroll 1
    for (int c = threadIdx.x; c < components; c += threads) {
        write_single(s, items, width, c);
    }
    const int vectors = s.place_of(components).vector();
#pragma unroll 1
    for (int v = warp; v < vectors; v += warps) {
        write_several<aligned, chunks, diagonal>(
                s, in.rows, items, parts.staged, v);
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
    const int bytes = Parts<chunks>::bytes(in.masks.words);
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const TileShape shape = {in.rows.n, in.rows.block_rows};
    kernel<<<shape.tiles(), threads, bytes, stream>>>(in, out, items, wide);
    return cudaGetLastError();
}

template <bool aligned, bool diagonal>
cudaError_t launch_chunks(
        int chunks,
        const TileInput& in,
        const MixtureRowsOutput& out,
        const TileItems& items,
        const WideRows& wide,
        cudaStream_t stream) {
    const auto launch_this = chunks <= 1 ? launch<aligned, 1, diagonal>
            : chunks == 2 && aligned ? launch<aligned, 2, diagonal>
            : chunks == 3 && aligned ? launch<aligned, 3, diagonal>
            : chunks <= 4            ? launch<aligned, 4, diagonal>
                                     : launch<aligned, 0, diagonal>;
    return launch_this(in, out, items, wide, stream);
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
    const bool aligned = in.rows.aligned();
    const int chunks = (d + 31) / 32;
    const auto launch_this = in.rows.half_precisions
            ? (aligned ? launch_chunks<true, true> : launch_chunks<false, true>)
            : (aligned ? launch_chunks<true, false>
                       : launch_chunks<false, false>);
    return launch_this(chunks, in, out, items, wide, stream);
}

} // namespace faiss_flash
