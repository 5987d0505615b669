// Fused distance and argmin for Hopper where rows are too long to stay in
// shared memory (d > 128): a matrix product that streams both operands, 64
// dimensions at a time, with the argmin at the end of each tile.
//
// One block: 256 rows × 128 centroids per tile, one warpgroup copying, two
// computing 128 rows each as two halves of 64.

#include <cuda_runtime.h>

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

/// 64 dimensions of 64 rows × 128 centroids.
__device__ __forceinline__ void issue_chunk(
        float (&acc)[64],
        const uint8_t* rows,
        const uint8_t* tile,
        bool accumulate) {
#pragma unroll
    for (int s = 0; s < 4; s++) {
        const uint64_t within = s * 2; // 32 bytes, in units of 16
        ptx::wgmma_64x128x16(
                acc,
                ptx::wgmma_operand(rows) + within,
                ptx::wgmma_operand(tile) + within,
                accumulate || s > 0);
    }
}

__device__ void compute_loop(
        Shared& shared,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        int64_t row_blocks,
        int tiles,
        int chunks) {
    const int group = threadIdx.x / 128 - 1; // 0 or 1
    const bool leader = threadIdx.x % 128 == 0;
    const float* alpha = centroids.alpha + 2 * (threadIdx.x % 4);
    Ring ring;

    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        Top2 top[4];
        for (int t = 0; t < tiles; t++) {
            float acc0[64], acc1[64];
            uint64_t* read = nullptr; // the stage before this one
            for (int c = 0; c < chunks; c++) {
                ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
                const Shared::Stage& stage = shared.stage[ring.slot];
                const uint8_t* half0 = stage.rows + group * 128 * chunk * 2;
                ptx::wgmma_fence();
                issue_chunk(acc0, half0, stage.tile, c > 0);
                issue_chunk(
                        acc1, half0 + 64 * chunk * 2, stage.tile, c > 0);
                ptx::wgmma_commit();
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
            // under the other warpgroup's products
            const float* tile_alpha = alpha + t * assign_columns;
            reduce_scores(
                    acc0,
                    tile_alpha,
                    centroids.beta,
                    centroids.key_keep,
                    t,
                    top[0],
                    top[1]);
            reduce_scores(
                    acc1,
                    tile_alpha,
                    centroids.beta,
                    centroids.key_keep,
                    t,
                    top[2],
                    top[3]);
        }
        write_rows(
                top, block * block_rows + group * 128, rows, centroids, out);
    }
}

__global__ void __launch_bounds__(384, 1) assign_sm90_deep_kernel(
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
            ptx::mbarrier_init(&shared.empty[i], 2);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<24>();
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
        ptx::registers_take<240>();
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
    assign_sm90_deep_kernel<<<grid, 384, bytes, stream>>>(
            rows_map, centroids_map, rows, centroids, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
