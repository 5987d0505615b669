// Fused distance and argmin for Hopper where rows are too long to stay in
// shared memory (d > 128): a matrix product that streams both operands, 64
// dimensions at a time, with the argmin at the end of each tile.
//
// One block: 256 rows × 128 centroids per tile, one warpgroup copying, four
// computing 64 rows each; one's argmin runs under the products of the others.

#include <cuda_runtime.h>

#include <cstddef>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {

namespace {

using namespace sm90;

constexpr int stages = 4; // of 48 KiB

struct Shared {
    struct Stage {
        uint8_t rows[row_chunk_bytes];
        uint8_t tile[tile_chunk_bytes];
    };
    alignas(1024) Stage stage[stages];
    uint64_t full[stages], empty[stages];
};

__device__ void copy_loop(
        Shared& shared,
        const CUtensorMap* rows_map,
        const CUtensorMap* centroids_map,
        int64_t row_blocks,
        int tiles,
        int chunks) {
    Ring ring;
    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        for (int t = 0; t < tiles; t++) {
            for (int c = 0; c < chunks; c++) {
                ptx::mbarrier_wait(&shared.empty[ring.slot], ring.parity ^ 1);
                uint64_t* full = &shared.full[ring.slot];
                Shared::Stage& stage = shared.stage[ring.slot];
                ptx::mbarrier_arrive_expect(full, sizeof(Shared::Stage));
                ptx::tma_load(
                        stage.rows,
                        rows_map,
                        full,
                        c * chunk,
                        block * block_rows);
                ptx::tma_load(
                        stage.tile,
                        centroids_map,
                        full,
                        c * chunk,
                        t * assign_columns);
                ring.advance(stages);
            }
        }
    }
}

/// 64 dimensions of 64 rows × 128 centroids; operand addresses.
__device__ __forceinline__ void issue_chunk(
        float (&acc)[64],
        uint32_t rows,
        uint32_t tile,
        bool accumulate) {
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; s++) {
        ptx::wgmma_64x128x16(
                acc,
                ptx::wgmma_operand(rows + 2 * s),
                ptx::wgmma_operand(tile + 2 * s),
                accumulate || s > 0);
    }
    ptx::wgmma_commit();
}

__device__ void compute_loop(
        Shared& shared,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int64_t row_blocks,
        int tiles,
        int chunks) {
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const float beta = centroids.terms->beta;
    const float* alpha = centroids.alpha + 2 * (threadIdx.x % 4);
    const uint32_t stages_at = ptx::operand_address(shared.stage);
    const uint32_t rows_within =
            (offsetof(Shared::Stage, rows) + group * 64 * chunk * 2) / 16;
    Ring ring;

    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        Top2 low, high;
        for (int t = 0; t < tiles; t++) {
            float acc[64];
            uint64_t* read = nullptr; // the stage before this one
            for (int c = 0; c < chunks; c++) {
                ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
                const uint32_t stage =
                        stages_at + ring.slot * (sizeof(Shared::Stage) / 16);
                issue_chunk(
                        acc,
                        stage + rows_within,
                        stage + offsetof(Shared::Stage, tile) / 16,
                        c > 0);
                ptx::wgmma_wait<1>(); // the products before these
                if (leader && read) {
                    ptx::mbarrier_arrive(read);
                }
                read = &shared.empty[ring.slot];
                ring.advance(stages);
            }
            ptx::wgmma_wait<0>();
            if (leader) {
                ptx::mbarrier_arrive(read);
            }
            const float* tile_alpha = alpha + t * assign_columns;
            reduce_scores(
                    acc,
                    [&](int g) {
                        return __ldg(reinterpret_cast<const float2*>(
                                tile_alpha + 8 * g));
                    },
                    beta,
                    centroids.key_factor,
                    t,
                    low,
                    high);
        }
        const int64_t first = block * block_rows + group * 64 + row_of_thread();
        write_row_of(low, first, rows, centroids, out);
        write_row_of(high, first + 8, rows, centroids, out);
    }
}

__global__ void __launch_bounds__(threads, 1) assign_sm90_deep_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap centroids_map,
        const PreparedRows rows,
        const PreparedCentroids centroids,
        const AssignOutput out) {
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<Shared*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const int64_t row_blocks = (rows.n + block_rows - 1) / block_rows;
    const int tiles = centroids.k_padded / assign_columns;
    const int chunks = (rows.d_padded + chunk - 1) / chunk;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&centroids_map);
        for (int i = 0; i < stages; i++) {
            ptx::mbarrier_init(&shared.full[i], 1);
            ptx::mbarrier_init(&shared.empty[i], groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<copy_registers>();
        if (threadIdx.x == 0) {
            copy_loop(
                    shared,
                    &rows_map,
                    &centroids_map,
                    row_blocks,
                    tiles,
                    chunks);
        }
    } else {
        ptx::registers_take<compute_registers>();
        compute_loop(shared, rows, centroids, out, row_blocks, tiles, chunks);
    }
}

} // namespace

cudaError_t launch_assign_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    const int bytes = sizeof(Shared) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            assign_sm90_deep_kernel,
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t row_blocks = (rows.n + block_rows - 1) / block_rows;
    const int grid =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    assign_sm90_deep_kernel<<<grid, threads, bytes, stream>>>(
            rows_map, centroids_map, rows, centroids, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
