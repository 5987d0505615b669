// Fused distance and argmin for Hopper: TMA copies, asynchronous warpgroup
// products, and the epilogue of one half tile under the products of the next.
//
// One block holds 256 rows in shared memory and streams all centroids past
// them, 128 at a time; for d ≤ 128. Warps: one warpgroup copies (one thread of it), two
// compute, 128 rows each as two halves of 64. README.md draws the schedule.

#include <cuda_runtime.h>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {

namespace {

using namespace sm90;

constexpr int stages = 3;
constexpr int tiles_in_flight = 2; // unrolled, see compute_tiles

/// Shared memory; every operand tile starts on a 1024-byte boundary.
template <int chunks>
struct Shared {
    alignas(1024) uint8_t rows[2][chunks][row_chunk_bytes];
    alignas(1024) uint8_t tiles[stages][chunks][tile_chunk_bytes];
    uint64_t rows_full[2], rows_empty[2];
    uint64_t tile_full[stages], tile_empty[stages];
};

template <int chunks>
__device__ void copy_loop(
        Shared<chunks>& shared,
        const CUtensorMap* rows_map,
        const CUtensorMap* centroids_map,
        int64_t row_blocks,
        int tiles) {
    Ring rows_ring, tile_ring;
    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        ptx::mbarrier_wait(
                &shared.rows_empty[rows_ring.slot], rows_ring.parity ^ 1);
        uint64_t* full = &shared.rows_full[rows_ring.slot];
        ptx::mbarrier_arrive_expect(full, chunks * row_chunk_bytes);
        for (int c = 0; c < chunks; c++) {
            ptx::tma_load(
                    shared.rows[rows_ring.slot][c],
                    rows_map,
                    full,
                    c * chunk,
                    block * block_rows);
        }
        rows_ring.advance(2);
        for (int t = 0; t < tiles; t++) {
            ptx::mbarrier_wait(
                    &shared.tile_empty[tile_ring.slot], tile_ring.parity ^ 1);
            uint64_t* tile_full = &shared.tile_full[tile_ring.slot];
            ptx::mbarrier_arrive_expect(tile_full, chunks * tile_chunk_bytes);
            for (int c = 0; c < chunks; c++) {
                ptx::tma_load(
                        shared.tiles[tile_ring.slot][c],
                        centroids_map,
                        tile_full,
                        c * chunk,
                        t * assign_columns);
            }
            tile_ring.advance(stages);
        }
    }
}

/// 64 rows × 128 centroids over all dimensions, issued and committed.
template <int steps>
__device__ void issue_products(
        float (&acc)[64],
        const uint8_t* rows,
        const uint8_t* tile) {
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < steps; s++) {
        const int c = s / 4;
        const uint64_t within = (s % 4) * 2; // 32 bytes, in units of 16
        ptx::wgmma_64x128x16(
                acc,
                ptx::wgmma_operand(rows + c * row_chunk_bytes) + within,
                ptx::wgmma_operand(tile + c * tile_chunk_bytes) + within,
                s > 0);
    }
    ptx::wgmma_commit();
}

/// What a computing warpgroup carries from tile to tile.
struct ComputeState {
    const uint8_t* half0; ///< its rows in shared memory
    const uint8_t* half1;
    const float* alpha; ///< at the thread's first column
    float beta;
    uint32_t keep;
    Top2 top[4]; ///< rows +0, +8 of the first half, of the second
    Ring ring;
};

/// `count` tiles, starting at `tile`, with one half's scores reduced while
/// the other's products, and then the next tile's, run. The products are all
/// done at the end: registers of running products must not be carried around
/// a loop (the compiler would then run everything in turn).
template <int count, int chunks, int steps>
__device__ __forceinline__ void compute_tiles(
        Shared<chunks>& shared,
        ComputeState& state,
        int tile) {
    float acc0[64], acc1[64];
    const bool leader = threadIdx.x % 128 == 0;
    ptx::mbarrier_wait(&shared.tile_full[state.ring.slot], state.ring.parity);
    issue_products<steps>(acc0, state.half0, shared.tiles[state.ring.slot][0]);
    issue_products<steps>(acc1, state.half1, shared.tiles[state.ring.slot][0]);
#pragma unroll
    for (int i = 0; i < count; i++) {
        const float* alpha = state.alpha + (tile + i) * assign_columns;
        uint64_t* empty = &shared.tile_empty[state.ring.slot];
        state.ring.advance(stages);
        const uint8_t* next = shared.tiles[state.ring.slot][0];

        ptx::wgmma_wait<1>(); // the first half's products
        reduce_scores(
                acc0,
                alpha,
                state.beta,
                state.keep,
                tile + i,
                state.top[0],
                state.top[1]);
        if (i + 1 < count) {
            ptx::mbarrier_wait(
                    &shared.tile_full[state.ring.slot], state.ring.parity);
            issue_products<steps>(acc0, state.half0, next);
            ptx::wgmma_wait<1>(); // the second half's
        } else {
            ptx::wgmma_wait<0>();
        }
        if (leader) {
            ptx::mbarrier_arrive(empty); // both halves have read the tile
        }
        reduce_scores(
                acc1,
                alpha,
                state.beta,
                state.keep,
                tile + i,
                state.top[2],
                state.top[3]);
        if (i + 1 < count) {
            issue_products<steps>(acc1, state.half1, next);
        }
    }
}

template <int chunks, int steps>
__device__ void compute_loop(
        Shared<chunks>& shared,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int64_t row_blocks,
        int tiles) {
    const int group = threadIdx.x / 128 - 1; // 0 or 1
    const int thread = threadIdx.x % 128;
    Ring rows_ring;
    ComputeState state;
    state.alpha = centroids.alpha + 2 * (thread % 4);
    state.beta = centroids.beta;
    state.keep = centroids.key_keep;

    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        ptx::mbarrier_wait(&shared.rows_full[rows_ring.slot], rows_ring.parity);
        state.half0 = shared.rows[rows_ring.slot][0] + group * 128 * chunk * 2;
        state.half1 = state.half0 + 64 * chunk * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            state.top[i] = Top2();
        }
        int tile = 0;
        for (; tile + tiles_in_flight <= tiles; tile += tiles_in_flight) {
            compute_tiles<tiles_in_flight, chunks, steps>(shared, state, tile);
        }
        for (; tile < tiles; tile++) {
            compute_tiles<1, chunks, steps>(shared, state, tile);
        }
        if (thread == 0) {
            ptx::mbarrier_arrive(&shared.rows_empty[rows_ring.slot]);
        }
        rows_ring.advance(2);
        write_rows(
                state.top,
                block * block_rows + group * 128,
                rows,
                centroids,
                out);
    }
}

template <int chunks, int steps>
__global__ void __launch_bounds__(384, 1) assign_sm90_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap centroids_map,
        const PreparedRows rows,
        const PreparedCentroids centroids,
        const AssignOutput out) {
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<Shared<chunks>*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const int64_t row_blocks = (rows.n + block_rows - 1) / block_rows;
    const int tiles = centroids.k_padded / assign_columns;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&centroids_map);
        for (int i = 0; i < 2; i++) {
            ptx::mbarrier_init(&shared.rows_full[i], 1);
            ptx::mbarrier_init(&shared.rows_empty[i], 2);
        }
        for (int i = 0; i < stages; i++) {
            ptx::mbarrier_init(&shared.tile_full[i], 1);
            ptx::mbarrier_init(&shared.tile_empty[i], 2);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<24>();
        if (threadIdx.x == 0) {
            copy_loop<chunks>(
                    shared, &rows_map, &centroids_map, row_blocks, tiles);
        }
    } else {
        ptx::registers_take<240>();
        compute_loop<chunks, steps>(
                shared, rows, centroids, out, row_blocks, tiles);
    }
}

template <int chunks, int steps>
cudaError_t launch(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    const auto kernel = assign_sm90_kernel<chunks, steps>;
    const int bytes = sizeof(Shared<chunks>) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t row_blocks = (rows.n + block_rows - 1) / block_rows;
    const int blocks =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    kernel<<<blocks, 384, bytes, stream>>>(
            rows_map, centroids_map, rows, centroids, out);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_assign_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    // products go 16 dimensions at a time
    switch ((rows.d_padded + 15) / 16) {
#define FAISS_FLASH_CASE(steps)                \
    case steps:                                \
        return launch<(steps + 3) / 4, steps>( \
                rows_map,                      \
                centroids_map,                 \
                rows,                          \
                centroids,                     \
                out,                           \
                multiprocessors,               \
                stream);
        FAISS_FLASH_CASE(1)
        FAISS_FLASH_CASE(2)
        FAISS_FLASH_CASE(3)
        FAISS_FLASH_CASE(4)
        FAISS_FLASH_CASE(5)
        FAISS_FLASH_CASE(6)
        FAISS_FLASH_CASE(7)
        FAISS_FLASH_CASE(8)
#undef FAISS_FLASH_CASE
        default:
            return cudaErrorInvalidValue;
    }
}

} // namespace faiss_flash
