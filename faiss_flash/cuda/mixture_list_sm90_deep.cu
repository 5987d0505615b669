// Lists of the components that matter, or bests of groups of them, for Hopper
// and rows too long to stay in shared memory (d > 128): the schedule of
// assign_sm90_deep.cu with other epilogues.

#include <cuda_runtime.h>

#include <faiss_flash/cuda/mixture_list.h>
#include <faiss_flash/cuda/mixture_sm90.cuh>

namespace faiss_flash {

namespace {

using namespace sm90;

constexpr int list_stages = 4; // of 48 KiB

struct ListShared {
    struct Stage {
        uint8_t rows[row_chunk_bytes];
        uint8_t tile[tile_chunk_bytes];
    };
    alignas(1024) Stage stage[list_stages];
    uint64_t full[list_stages], empty[list_stages];
};

__device__ void copy_loop(
        ListShared& shared,
        const CUtensorMap* rows_map,
        const CUtensorMap* means_map,
        int64_t row_blocks,
        int tiles,
        int chunks) {
    Ring ring;
    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        for (int t = 0; t < tiles; t++) {
            for (int c = 0; c < chunks; c++) {
                ptx::mbarrier_wait(&shared.empty[ring.slot], ring.parity ^ 1);
                uint64_t* full = &shared.full[ring.slot];
                ListShared::Stage& stage = shared.stage[ring.slot];
                ptx::mbarrier_arrive_expect(full, sizeof(ListShared::Stage));
                ptx::tma_load(
                        stage.rows,
                        rows_map,
                        full,
                        c * chunk,
                        block * block_rows);
                ptx::tma_load(
                        stage.tile,
                        means_map,
                        full,
                        c * chunk,
                        t * assign_columns);
                ring.advance(list_stages);
            }
        }
    }
}

/// 64 dimensions of 64 rows × 128 means; operand addresses.
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
__device__ void compute_loop(
        ListShared& shared,
        const ListInput& in,
        const typename Epilogue::Output& out,
        int64_t row_blocks,
        int tiles,
        int chunks) {
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const uint32_t stages_at = ptx::operand_address(shared.stage);
    const uint32_t rows_within =
            (offsetof(ListShared::Stage, rows) + group * 64 * chunk * 2) / 16;
    Ring ring;
    for (int64_t block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        Epilogue epilogue;
        epilogue.start(in, block * block_rows + group * 64);
        for (int t = 0; t < tiles; t++) {
            float acc[64];
            uint64_t* read = nullptr; // the stage before this one
            for (int c = 0; c < chunks; c++) {
                ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
                const uint32_t stage = stages_at +
                        ring.slot * (sizeof(ListShared::Stage) / 16);
                issue_chunk(
                        acc,
                        stage + rows_within,
                        stage + offsetof(ListShared::Stage, tile) / 16,
                        c > 0);
                ptx::wgmma_wait<1>(); // the products before these
                if (leader && read) {
                    ptx::mbarrier_arrive(read);
                }
                read = &shared.empty[ring.slot];
                ring.advance(list_stages);
            }
            ptx::wgmma_wait<0>();
            if (leader) {
                ptx::mbarrier_arrive(read);
            }
            // under the other warpgroups' products
            epilogue.add(in, out, acc, t);
        }
        epilogue.finish(in, out);
    }
}

template <class Epilogue>
__global__ void __launch_bounds__(threads, 1) list_sm90_deep_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap means_map,
        const ListInput in,
        const typename Epilogue::Output out) {
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<ListShared*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const int64_t row_blocks = (in.n + block_rows - 1) / block_rows;
    const int tiles = in.k_padded / assign_columns;
    const int chunks = (in.d_padded + chunk - 1) / chunk;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&means_map);
        for (int i = 0; i < list_stages; i++) {
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
                    shared, &rows_map, &means_map, row_blocks, tiles, chunks);
        }
    } else {
        ptx::registers_take<compute_registers>();
        compute_loop<Epilogue>(
                shared, in, out, row_blocks, tiles, chunks);
    }
}

template <class Epilogue>
cudaError_t launch(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const typename Epilogue::Output& out,
        int multiprocessors,
        cudaStream_t stream) {
    const auto kernel = list_sm90_deep_kernel<Epilogue>;
    const int bytes = sizeof(ListShared) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t row_blocks = (in.n + block_rows - 1) / block_rows;
    const int grid =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    kernel<<<grid, threads, bytes, stream>>>(
            rows_map, means_map, in, out);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_list_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ListInput& in,
        const ListOutput& out,
        int multiprocessors,
        cudaStream_t stream) {
    return launch<ThreadLists>(
            rows_map, means_map, in, out, multiprocessors, stream);
}

cudaError_t launch_groups_sm90_deep(
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
