// Lists of the components that matter, or bests of groups of them, for Hopper
// and d ≤ 128: the schedule of assign_sm90.cu with other epilogues.
//
// One block holds 256 rows in shared memory and streams all means past them,
// 128 at a time. One warpgroup copies (one thread of it), four compute, 64
// rows each: the products of three run under the scores of the fourth.

#include <cuda_runtime.h>

#include <faiss_flash/cuda/mixture_list.h>
#include <faiss_flash/cuda/mixture_sm90.cuh>

namespace faiss_flash {

namespace {

using namespace sm90;

constexpr int list_stages = 3;

/// Shared memory; every operand tile starts on a 1024-byte boundary.
template <int chunks>
struct ListShared {
    alignas(1024) uint8_t rows[2][chunks][row_chunk_bytes];
    alignas(1024) uint8_t tiles[list_stages][chunks][tile_chunk_bytes];
    uint64_t rows_full[2], rows_empty[2];
    uint64_t tile_full[list_stages], tile_empty[list_stages];
};

template <int chunks>
__device__ void copy_loop(
        ListShared<chunks>& shared,
        const CUtensorMap* rows_map,
        const CUtensorMap* means_map,
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
                        means_map,
                        tile_full,
                        c * chunk,
                        t * assign_columns);
            }
            tile_ring.advance(list_stages);
        }
    }
}

/// 64 rows × 128 means over all dimensions; operand addresses.
template <int steps>
__device__ __forceinline__ void products(
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
    ptx::wgmma_wait<0>();
}

template <class Epilogue, int chunks, int steps>
__device__ void compute_loop(
        ListShared<chunks>& shared,
        const ListInput& in,
        const typename Epilogue::Output& out,
        int64_t row_blocks,
        int tiles) {
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const uint32_t rows_at =
            ptx::operand_address(shared.rows) + group * (64 * chunk * 2 / 16);
    const uint32_t tiles_at = ptx::operand_address(shared.tiles);
    Ring rows_ring, ring;
    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        Epilogue epilogue;
        epilogue.start(in, block * block_rows + group * 64);
        ptx::mbarrier_wait(&shared.rows_full[rows_ring.slot], rows_ring.parity);
        for (int tile = 0; tile < tiles; tile++) {
            float acc[64];
            ptx::mbarrier_wait(&shared.tile_full[ring.slot], ring.parity);
            products<steps>(
                    acc,
                    rows_at + rows_ring.slot * (sizeof(shared.rows[0]) / 16),
                    tiles_at + ring.slot * (sizeof(shared.tiles[0]) / 16));
            if (leader) {
                ptx::mbarrier_arrive(&shared.tile_empty[ring.slot]);
            }
            ring.advance(list_stages);
            epilogue.add(in, out, acc, tile);
        }
        if (leader) {
            ptx::mbarrier_arrive(&shared.rows_empty[rows_ring.slot]);
        }
        rows_ring.advance(2);
        epilogue.finish(in, out);
    }
}

template <class Epilogue, int chunks, int steps>
__global__ void __launch_bounds__(threads, 1) list_sm90_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap means_map,
        const ListInput in,
        const typename Epilogue::Output out) {
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<ListShared<chunks>*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const int64_t row_blocks = (in.n + block_rows - 1) / block_rows;
    const int tiles = in.k_padded / assign_columns;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&means_map);
        for (int i = 0; i < 2; i++) {
            ptx::mbarrier_init(&shared.rows_full[i], 1);
            ptx::mbarrier_init(&shared.rows_empty[i], groups);
        }
        for (int i = 0; i < list_stages; i++) {
            ptx::mbarrier_init(&shared.tile_full[i], 1);
            ptx::mbarrier_init(&shared.tile_empty[i], groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<copy_registers>();
        if (threadIdx.x == 0) {
            copy_loop<chunks>(shared, &rows_map, &means_map, row_blocks, tiles);
        }
    } else {
        ptx::registers_take<compute_registers>();
        compute_loop<Epilogue, chunks, steps>(
                shared, in, out, row_blocks, tiles);
    }
}

template <class Epilogue, int chunks, int steps>
cudaError_t launch_steps(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const typename Epilogue::Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    const auto kernel = list_sm90_kernel<Epilogue, chunks, steps>;
    const int bytes = sizeof(ListShared<chunks>) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t row_blocks = (in.n + block_rows - 1) / block_rows;
    const int blocks =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    kernel<<<blocks, threads, bytes, stream>>>(
            rows_map, means_map, in, out);
    return cudaGetLastError();
}

template <class Epilogue>
cudaError_t launch(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const typename Epilogue::Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    // products go 16 dimensions at a time
    switch ((in.d_padded + 15) / 16) {
#define FAISS_FLASH_CASE(steps)                                \
    case steps:                                                \
        return launch_steps<Epilogue, (steps + 3) / 4, steps>( \
                rows_map, means_map, in, out, multiprocessors, stream);
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

} // namespace

cudaError_t launch_list_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const ListOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    return launch<ThreadLists>(
            rows_map, means_map, in, out, multiprocessors, stream);
}

cudaError_t launch_groups_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const GroupOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    return launch<ThreadGroups>(
            rows_map, means_map, in, out, multiprocessors, stream);
}

} // namespace faiss_flash
