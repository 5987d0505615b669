#pragma once

// The pipeline of the Hopper kernels whose rows stay in shared memory (d ≤
// 128): TMA copies, asynchronous warpgroup products, and an epilogue for one
// warpgroup's products under the products of the others.
//
// One block holds 256 rows and streams all centroids (or means) past them,
// 128 at a time. One warpgroup copies (one thread of it), four compute, 64
// rows each. README.md draws the schedule. What becomes of the products is an
// Epilogue's business, one object per thread and 64 rows:
//
//   using Input, Output        passed by value to the kernel
//   using Columns              what it needs of two neighbouring columns
//   static constexpr bool columns_travel: to shared memory, with the tiles
//                              (where that has room); else they are loaded
//   static PassShape shape(const Input&)
//   void start(const Input&, int64_t first_row)
//   void add(const Input&, const Output&, const float (&acc)[64], int tile,
//            load)             load(g): Columns of 8g + 2·(t%4) and the next
//   void finish(const Input&, const Output&)

#include <cuda_runtime.h>

#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {
namespace sm90 {

/// Buffers of tiles.
constexpr int tile_stages = 3;

/// Shared memory; every operand tile starts on a 1024-byte boundary.
template <class Epilogue, int chunks>
struct RowsShared {
    using Columns = typename Epilogue::Columns;
    alignas(1024) uint8_t rows[2][chunks][row_chunk_bytes];
    alignas(1024) uint8_t tiles[tile_stages][chunks][tile_chunk_bytes];
    alignas(16) Columns columns[tile_stages]
                               [Epilogue::columns_travel ? assign_columns / 2
                                                         : 1];
    uint64_t rows_full[2], rows_empty[2];
    uint64_t tile_full[tile_stages], tile_empty[tile_stages];
};

template <class Epilogue, int chunks>
__device__ void copy_rows_loop(
        RowsShared<Epilogue, chunks>& shared,
        const CUtensorMap* rows_map,
        const CUtensorMap* centroids_map,
        const typename Epilogue::Columns* columns,
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
            auto& tile_columns = shared.columns[tile_ring.slot];
            ptx::mbarrier_arrive_expect(
                    tile_full,
                    chunks * tile_chunk_bytes +
                            Epilogue::columns_travel * sizeof(tile_columns));
            if constexpr (Epilogue::columns_travel) {
                ptx::bulk_load(
                        tile_columns,
                        columns + t * (assign_columns / 2),
                        sizeof(tile_columns),
                        tile_full);
            }
            for (int c = 0; c < chunks; c++) {
                ptx::tma_load(
                        shared.tiles[tile_ring.slot][c],
                        centroids_map,
                        tile_full,
                        c * chunk,
                        t * assign_columns);
            }
            tile_ring.advance(tile_stages);
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

template <class Epilogue, int chunks, int steps>
__device__ void compute_rows_loop(
        RowsShared<Epilogue, chunks>& shared,
        const typename Epilogue::Input& in,
        const typename Epilogue::Output& out,
        int64_t row_blocks,
        int tiles) {
    using Columns = typename Epilogue::Columns;
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const uint32_t rows_at =
            ptx::operand_address(shared.rows) + group * (64 * chunk * 2 / 16);
    const uint32_t tiles_at = ptx::operand_address(shared.tiles);
    const uint32_t columns_at = ptx::shared_address(shared.columns) +
            threadIdx.x % 4 * sizeof(Columns);
    const Columns* columns =
            static_cast<const Columns*>(Epilogue::shape(in).columns) +
            threadIdx.x % 4;
    Ring rows_ring, ring;

    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        Epilogue epilogue;
        epilogue.start(in, block * block_rows + group * 64);
        ptx::mbarrier_wait(&shared.rows_full[rows_ring.slot], rows_ring.parity);
        for (int tile = 0; tile < tiles; tile++) {
            float acc[64];
            ptx::mbarrier_wait(&shared.tile_full[ring.slot], ring.parity);
            issue_products<steps>(
                    acc,
                    rows_at + rows_ring.slot * (sizeof(shared.rows[0]) / 16),
                    tiles_at + ring.slot * (sizeof(shared.tiles[0]) / 16));
            ptx::wgmma_wait<0>();
            if constexpr (Epilogue::columns_travel) {
                epilogue.add(in, out, acc, tile, [&](int g) {
                    return ptx::load_shared<Columns>(
                            columns_at +
                            ring.slot * sizeof(shared.columns[0]) +
                            g * (4 * sizeof(Columns)));
                });
                // every thread: each has read its columns
                ptx::mbarrier_arrive(&shared.tile_empty[ring.slot]);
                ring.advance(tile_stages);
            } else {
                if (leader) {
                    ptx::mbarrier_arrive(&shared.tile_empty[ring.slot]);
                }
                ring.advance(tile_stages);
                const Columns* tile_columns =
                        columns + tile * (assign_columns / 2);
                epilogue.add(in, out, acc, tile, [&](int g) {
                    return load_columns(tile_columns + 4 * g);
                });
            }
        }
        if (leader) {
            ptx::mbarrier_arrive(&shared.rows_empty[rows_ring.slot]);
        }
        rows_ring.advance(2);
        epilogue.finish(in, out);
    }
}

template <class Epilogue, int chunks, int steps>
__global__ void __launch_bounds__(threads, 1) rows_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap centroids_map,
        const typename Epilogue::Input in,
        const typename Epilogue::Output out) {
    using Columns = typename Epilogue::Columns;
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<RowsShared<Epilogue, chunks>*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const PassShape shape = Epilogue::shape(in);
    const int64_t row_blocks = (shape.n + block_rows - 1) / block_rows;
    const int tiles = shape.k_padded / assign_columns;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&centroids_map);
        for (int i = 0; i < 2; i++) {
            ptx::mbarrier_init(&shared.rows_full[i], 1);
            ptx::mbarrier_init(&shared.rows_empty[i], groups);
        }
        for (int i = 0; i < tile_stages; i++) {
            ptx::mbarrier_init(&shared.tile_full[i], 1);
            ptx::mbarrier_init(
                    &shared.tile_empty[i],
                    Epilogue::columns_travel ? 128 * groups : groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<copy_registers>();
        if (threadIdx.x == 0) {
            copy_rows_loop<Epilogue, chunks>(
                    shared,
                    &rows_map,
                    &centroids_map,
                    static_cast<const Columns*>(shape.columns),
                    row_blocks,
                    tiles);
        }
    } else {
        ptx::registers_take<compute_registers>();
        compute_rows_loop<Epilogue, chunks, steps>(
                shared, in, out, row_blocks, tiles);
    }
}

template <class Epilogue, int chunks, int steps>
cudaError_t launch_rows_steps(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const typename Epilogue::Input& in,
        const typename Epilogue::Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    const auto kernel = rows_kernel<Epilogue, chunks, steps>;
    const int bytes =
            sizeof(RowsShared<Epilogue, chunks>) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t row_blocks =
            (Epilogue::shape(in).n + block_rows - 1) / block_rows;
    const int blocks =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    kernel<<<blocks, threads, bytes, stream>>>(
            rows_map, centroids_map, in, out);
    return cudaGetLastError();
}

/// Rows of up to 128 dimensions; products go 16 dimensions at a time.
template <class Epilogue>
cudaError_t launch_rows(
        const CUtensorMap& rows_map,
        const CUtensorMap& centroids_map,
        const typename Epilogue::Input& in,
        const typename Epilogue::Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    switch ((Epilogue::shape(in).d_padded + 15) / 16) {
#define FAISS_FLASH_CASE(steps)                                     \
    case steps:                                                     \
        return launch_rows_steps<Epilogue, (steps + 3) / 4, steps>( \
                rows_map, centroids_map, in, out, multiprocessors, stream);
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

} // namespace sm90
} // namespace faiss_flash
