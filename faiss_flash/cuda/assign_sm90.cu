// Fused distance and argmin for Hopper: TMA copies, asynchronous warpgroup
// products, and the epilogue of one warpgroup under the products of others.
//
// One block holds 256 rows in shared memory and streams all centroids past
// them, 128 at a time; for d ≤ 128. Warps: one warpgroup copies (one thread
// of it), four compute, 64 rows each. README.md draws the schedule.

#include <cuda_runtime.h>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {

namespace {

using namespace sm90;

constexpr int stages = 3;

/// Shared memory; every operand tile starts on a 1024-byte boundary.
template <int chunks>
struct Shared {
    alignas(1024) uint8_t rows[2][chunks][row_chunk_bytes];
    alignas(1024) uint8_t tiles[stages][chunks][tile_chunk_bytes];
    alignas(16) float alpha[stages][assign_columns];
    uint64_t rows_full[2], rows_empty[2];
    uint64_t tile_full[stages], tile_empty[stages];
};

template <int chunks>
__device__ void copy_loop(
        Shared<chunks>& shared,
        const CUtensorMap* rows_map,
        const CUtensorMap* centroids_map,
        const float* alpha,
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
            float* tile_alpha = shared.alpha[tile_ring.slot];
            ptx::mbarrier_arrive_expect(
                    tile_full,
                    chunks * tile_chunk_bytes + sizeof(shared.alpha[0]));
            ptx::bulk_load(
                    tile_alpha,
                    alpha + t * assign_columns,
                    sizeof(shared.alpha[0]),
                    tile_full);
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

/// 64 rows × 128 centroids over all dimensions, issued and committed;
/// operand addresses.
template <int steps>
__device__ __forceinline__ void issue_products(
        float (&acc)[64],
        uint32_t rows,
        uint32_t tile) {
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < steps; s++) {
        const int c = s / 4;
        const int within = s % 4 * (32 / 16);
        ptx::wgmma_64x128x16(
                acc,
                ptx::wgmma_operand(rows + c * (row_chunk_bytes / 16) + within),
                ptx::wgmma_operand(tile + c * (tile_chunk_bytes / 16) + within),
                s > 0);
    }
    ptx::wgmma_commit();
}

template <int chunks, int steps>
__device__ void compute_loop(
        Shared<chunks>& shared,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int64_t row_blocks,
        int tiles) {
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const uint32_t rows_at =
            ptx::operand_address(shared.rows) + group * (64 * chunk * 2 / 16);
    const uint32_t tiles_at = ptx::operand_address(shared.tiles);
    const uint32_t alpha_at =
            ptx::shared_address(shared.alpha) + threadIdx.x % 4 * 8;
    const float beta = centroids.terms->beta;
    const uint32_t factor = centroids.key_factor;
    Ring rows_ring, ring;

    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        ptx::mbarrier_wait(&shared.rows_full[rows_ring.slot], rows_ring.parity);
        Top2 low, high;
        for (int tile = 0; tile < tiles; tile++) {
            float acc[64];
            ptx::mbarrier_wait(&shared.tile_full[ring.slot], ring.parity);
            issue_products<steps>(
                    acc,
                    rows_at + rows_ring.slot * (sizeof(shared.rows[0]) / 16),
                    tiles_at + ring.slot * (sizeof(shared.tiles[0]) / 16));
            ptx::wgmma_wait<0>();
            reduce_scores(
                    acc,
                    [&](int g) {
                        return ptx::load_shared_float2(
                                alpha_at +
                                ring.slot * sizeof(shared.alpha[0]) + 32 * g);
                    },
                    beta,
                    factor,
                    tile,
                    low,
                    high);
            // every thread: each has read its alphas
            ptx::mbarrier_arrive(&shared.tile_empty[ring.slot]);
            ring.advance(stages);
        }
        if (leader) {
            ptx::mbarrier_arrive(&shared.rows_empty[rows_ring.slot]);
        }
        rows_ring.advance(2);
        const int64_t first = block * block_rows + group * 64;
        write_row_of(low, first + row_of_thread(), rows, centroids, out);
        write_row_of(high, first + row_of_thread() + 8, rows, centroids, out);
    }
}

template <int chunks, int steps>
__global__ void __launch_bounds__(threads, 1) assign_sm90_kernel(
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
            ptx::mbarrier_init(&shared.rows_empty[i], groups);
        }
        for (int i = 0; i < stages; i++) {
            ptx::mbarrier_init(&shared.tile_full[i], 1);
            ptx::mbarrier_init(&shared.tile_empty[i], 128 * groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<copy_registers>();
        if (threadIdx.x == 0) {
            copy_loop<chunks>(
                    shared,
                    &rows_map,
                    &centroids_map,
                    centroids.alpha,
                    row_blocks,
                    tiles);
        }
    } else {
        ptx::registers_take<compute_registers>();
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
    kernel<<<blocks, threads, bytes, stream>>>(
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
