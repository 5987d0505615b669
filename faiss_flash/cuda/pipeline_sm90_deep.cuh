#pragma once

// The pipeline of the Hopper kernels for rows that are too long to stay in
// shared memory (d > 128): a matrix product that streams both operands, 64
// dimensions at a time, with the epilogue at the end of each tile. Epilogues
// are those of pipeline_sm90.cuh.
//
// One block: 256 rows × 128 centroids per tile, one warpgroup copying, four
// computing 64 rows each; one's epilogue runs under the products of others.

#include <cuda_runtime.h>

#include <cstddef>

#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {
namespace sm90 {

constexpr int deep_stages = 4; // of 48 KiB

struct DeepShared {
    struct Stage {
        uint8_t rows[row_chunk_bytes];
        uint8_t tile[tile_chunk_bytes];
    };
    alignas(1024) Stage stage[deep_stages];
    uint64_t full[deep_stages], empty[deep_stages];
};

inline __device__ void copy_deep_loop(
        DeepShared& shared,
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
                DeepShared::Stage& stage = shared.stage[ring.slot];
                ptx::mbarrier_arrive_expect(full, sizeof(DeepShared::Stage));
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
                ring.advance(deep_stages);
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

template <class Epilogue>
__device__ void compute_deep_loop(
        DeepShared& shared,
        const typename Epilogue::Input& in,
        const typename Epilogue::Output& out,
        int64_t row_blocks,
        int tiles,
        int chunks) {
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    using Columns = typename Epilogue::Columns;
    const Columns* columns =
            static_cast<const Columns*>(Epilogue::shape(in).columns) +
            threadIdx.x % 4;
    const uint32_t stages_at = ptx::operand_address(shared.stage);
    const uint32_t rows_within =
            (offsetof(DeepShared::Stage, rows) + group * 64 * chunk * 2) / 16;
    Ring ring;

    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        Epilogue epilogue;
        epilogue.start(in, block * block_rows + group * 64);
        for (int t = 0; t < tiles; t++) {
            float acc[64];
            uint64_t* read = nullptr; // the stage before this one
            for (int c = 0; c < chunks; c++) {
                ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
                const uint32_t stage =
                        stages_at + ring.slot * (sizeof(DeepShared::Stage) / 16);
                issue_chunk(
                        acc,
                        stage + rows_within,
                        stage + offsetof(DeepShared::Stage, tile) / 16,
                        c > 0);
                ptx::wgmma_wait<1>(); // the products before these
                if (leader && read) {
                    ptx::mbarrier_arrive(read);
                }
                read = &shared.empty[ring.slot];
                ring.advance(deep_stages);
            }
            ptx::wgmma_wait<0>();
            if (leader) {
                ptx::mbarrier_arrive(read);
            }
            const Columns* tile_columns = columns + t * (assign_columns / 2);
            epilogue.add(in, out, acc, t, [&](int g) {
                return load_columns(tile_columns + 4 * g);
            });
        }
        epilogue.finish(in, out);
    }
}

template <class Epilogue>
__global__ void __launch_bounds__(threads, 1) deep_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap centroids_map,
        const typename Epilogue::Input in,
        const typename Epilogue::Output out) {
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<DeepShared*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const PassShape shape = Epilogue::shape(in);
    const int64_t row_blocks = (shape.n + block_rows - 1) / block_rows;
    const int tiles = shape.k_padded / assign_columns;
    const int chunks = (shape.d_padded + chunk - 1) / chunk;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&centroids_map);
        for (int i = 0; i < deep_stages; i++) {
            ptx::mbarrier_init(&shared.full[i], 1);
            ptx::mbarrier_init(&shared.empty[i], groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<copy_registers>();
        if (threadIdx.x == 0) {
            copy_deep_loop(
                    shared,
                    &rows_map,
                    &centroids_map,
                    row_blocks,
                    tiles,
                    chunks);
        }
    } else {
        ptx::registers_take<compute_registers>();
        compute_deep_loop<Epilogue>(
                shared, in, out, row_blocks, tiles, chunks);
    }
}

template <class Epilogue>
cudaError_t launch_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const typename Epilogue::Input& in,
        const typename Epilogue::Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    const auto kernel = deep_kernel<Epilogue>;
    const int bytes = sizeof(DeepShared) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t row_blocks =
            (Epilogue::shape(in).n + block_rows - 1) / block_rows;
    const int grid =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    kernel<<<grid, threads, bytes, stream>>>(
            rows_map, centroids_map, in, out);
    return cudaGetLastError();
}

} // namespace sm90
} // namespace faiss_flash
