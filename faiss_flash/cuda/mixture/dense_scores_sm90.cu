// Scores of dense rows on Hopper. Operands of up to 128 columns: 256 rows stay
// in shared memory, both halves of them, and components stream past them, so
// that each half of theirs is copied once and not for every product. Longer
// operands go through the deep pipeline.

#include <cstddef>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/mixture/dense_scores.cuh>
#include <faiss_flash/cuda/pipeline_sm90_deep.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace sm90 {

namespace {

struct ScoresInput {
    int rows;
    DenseProducts products;
};

/// Scores of a thread's two rows of 64 to memory, and what they find.
struct ThreadScores {
    using Input = ScoresInput;
    using Output = DenseFound*; ///< (rows)
    using Columns = float4; ///< a, h of two columns
    __host__ __device__ static PassShape shape(const ScoresInput& in) {
        return {in.rows,
                3 * in.products.width,
                in.products.k_padded,
                in.products.columns};
    }
    float norm2[2];
    DenseFound found[2];
    int first; ///< of the 64 rows

    __device__ int row(int high) const {
        return first + row_of_thread() + 8 * high;
    }

    __device__ void start(const ScoresInput& in, int64_t first_row) {
        first = first_row;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            norm2[i] = row(i) < in.rows ? in.products.norm2[row(i)] : 0;
            found[i] = nothing_found;
        }
    }

    template <class Load>
    __device__ __forceinline__ void add(
            const ScoresInput& in,
            DenseFound* const&,
            float (&acc)[64],
            int tile,
            Load&& load) {
        const int column0 = tile * assign_columns + 2 * (threadIdx.x % 4);
        float* to = in.products.scores +
                score_place(
                        first + threadIdx.x % 128 / 32 * 16,
                        tile * assign_columns,
                        in.products.k_padded) +
                threadIdx.x % 32 / 4 % 2 * 128 + threadIdx.x % 4 * 16 +
                threadIdx.x % 32 / 8 * 4;
        const bool real = first < in.rows; // batches are of 128 rows
        const float before[2] = {found[0].top, found[1].top};
        constexpr int ahead = 2;
        float4 columns[ahead];
#pragma unroll
        for (int g = 0; g < ahead; g++) {
            columns[g] = load(g);
        }
        int best[2] = {-1, -1}; // of this tile, past column0
#pragma unroll
        for (int g = 0; g < 16; g++) {
            const float4 c = columns[g % ahead];
            if (g + ahead < 16) {
                columns[g % ahead] = load(g + ahead);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float* pair = &acc[4 * g + 2 * i];
                pair[0] = fmaf(c.y, fmaf(2, pair[0], -norm2[i]), c.x);
                pair[1] = fmaf(c.w, fmaf(2, pair[1], -norm2[i]), c.z);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const bool better = pair[e] > found[i].top;
                    found[i].top = better ? pair[e] : found[i].top;
                    best[i] = better ? 8 * g + e : best[i];
                }
            }
            if (real) { // in the order of the program, see load_columns()
                asm volatile(
                        "st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                                to + g / 2 * 256 + g % 2 * 64),
                        "f"(acc[4 * g]),
                        "f"(acc[4 * g + 1]),
                        "f"(acc[4 * g + 2]),
                        "f"(acc[4 * g + 3])
                        : "memory");
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            found[i].best =
                    best[i] >= 0 ? column0 + best[i] : found[i].best;
            float sum[2] = {};
#pragma unroll
            for (int g = 0; g < 16; g++) {
                const float* pair = &acc[4 * g + 2 * i];
                sum[0] += __expf(pair[0] - found[i].top);
                sum[1] += __expf(pair[1] - found[i].top);
            }
            found[i].sum = found[i].sum * __expf(before[i] - found[i].top) +
                    (sum[0] + sum[1]);
        }
    }

    __device__ void finish(const ScoresInput& in, DenseFound* const& out) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            merge_lanes(found[i]);
            if (threadIdx.x % 4 == 0 && row(i) < in.rows) {
                out[row(i)] = found[i];
            }
        }
    }
};

constexpr int scores_stages = 3; ///< of one half of 128 components
/// per thread, of the computing warpgroups and of the copying one
constexpr int score_registers = 112, score_copy_registers = 32;

/// Rows of one warpgroup: high and low halves, 64 columns each.
template <int chunks>
struct ScoresShared {
    static constexpr int part_bytes = 64 * chunk * 2;
    struct Rows {
        uint8_t part[2][chunks][part_bytes];
    };
    alignas(1024) Rows rows[groups];
    alignas(1024) uint8_t tile[scores_stages][chunks][tile_chunk_bytes];
    uint64_t rows_full[groups], rows_empty[groups];
    uint64_t full[scores_stages], empty[scores_stages];
};

template <int chunks>
__device__ void copy_score_rows(
        ScoresShared<chunks>& shared,
        const CUtensorMap* map,
        int width,
        int row_blocks) {
    uint32_t parity = 1;
    for (int block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        for (int g = 0; g < groups; g++) {
            ptx::mbarrier_wait(&shared.rows_empty[g], parity);
            uint64_t* full = &shared.rows_full[g];
            ptx::mbarrier_arrive_expect(full, sizeof(shared.rows[g]));
            for (int part = 0; part < 2; part++) {
                for (int c = 0; c < chunks; c++) {
                    ptx::tma_load(
                            shared.rows[g].part[part][c],
                            map,
                            full,
                            part * width + c * chunk,
                            block * block_rows + g * 64);
                }
            }
        }
        parity ^= 1;
    }
}

template <int chunks>
__device__ void copy_score_tiles(
        ScoresShared<chunks>& shared,
        const CUtensorMap* map,
        int width,
        int row_blocks,
        int tiles) {
    Ring ring;
    for (int block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        for (int i = 0; i < 2 * tiles; i++) {
            ptx::mbarrier_wait(&shared.empty[ring.slot], ring.parity ^ 1);
            uint64_t* full = &shared.full[ring.slot];
            ptx::mbarrier_arrive_expect(full, chunks * tile_chunk_bytes);
            for (int c = 0; c < chunks; c++) {
                ptx::tma_load(
                        shared.tile[ring.slot][c],
                        map,
                        full,
                        i % 2 * width + c * chunk,
                        i / 2 * assign_columns);
            }
            ring.advance(scores_stages);
        }
    }
}

/// One half of 64 rows by one half of 128 components.
template <int steps>
__device__ __forceinline__ void issue_half(
        float (&acc)[64],
        uint32_t rows,
        uint32_t tile,
        bool accumulate) {
    // not known before: addresses of all steps are too many registers
    asm volatile("" : "+r"(rows), "+r"(tile));
#pragma unroll
    for (int s = 0; s < steps; s++) {
        const uint32_t within = s % 4 * 2;
        ptx::wgmma_64x128x16(
                acc,
                ptx::wgmma_operand(
                        rows + s / 4 * (64 * chunk * 2 / 16) + within),
                ptx::wgmma_operand(
                        tile + s / 4 * (tile_chunk_bytes / 16) + within),
                accumulate || s > 0);
    }
}

template <int steps, int chunks>
__device__ void compute_scores(
        ScoresShared<chunks>& shared,
        const ScoresInput& in,
        DenseFound* const& out,
        int row_blocks,
        int tiles) {
    const int group = warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const uint32_t rows_at =
            ptx::operand_address(shared.rows) +
            group * (sizeof(shared.rows[0]) / 16);
    const uint32_t tiles_at = ptx::operand_address(shared.tile);
    constexpr uint32_t part_step =
            chunks * ScoresShared<chunks>::part_bytes / 16;
    constexpr uint32_t tile_step = sizeof(shared.tile[0]) / 16;
    Ring ring;
    uint32_t parity = 0;
    for (int block = blockIdx.x; block < row_blocks; block += gridDim.x) {
        ThreadScores epilogue;
        epilogue.start(in, block * block_rows + group * 64);
        ptx::mbarrier_wait(&shared.rows_full[group], parity);
        for (int t = 0; t < tiles; t++) {
            float acc[64];
            // small products first: sums lose what they are truncated by
            const int low = ring.slot;
            ptx::mbarrier_wait(&shared.full[low], ring.parity);
            ptx::wgmma_fence();
            issue_half<steps>(
                    acc, rows_at, tiles_at + low * tile_step, false);
            ptx::wgmma_commit();
            ring.advance(scores_stages);
            const uint32_t high = tiles_at + ring.slot * tile_step;
            ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
            ptx::wgmma_fence();
            issue_half<steps>(acc, rows_at + part_step, high, true);
            issue_half<steps>(acc, rows_at, high, true);
            ptx::wgmma_commit();
            ptx::wgmma_wait<1>(); // the first of these
            if (leader) {
                ptx::mbarrier_arrive(&shared.empty[low]);
            }
            ptx::wgmma_wait<0>();
            if (leader) {
                ptx::mbarrier_arrive(&shared.empty[ring.slot]);
                if (t == tiles - 1) {
                    ptx::mbarrier_arrive(&shared.rows_empty[group]);
                }
            }
            ring.advance(scores_stages);
            const float4* tile_columns =
                    reinterpret_cast<const float4*>(in.products.columns) +
                    t * (assign_columns / 2) + threadIdx.x % 4;
            epilogue.add(in, out, acc, t, [&](int g) {
                return load_columns(tile_columns + 4 * g);
            });
        }
        epilogue.finish(in, out);
        parity ^= 1;
    }
}

template <int steps>
__global__ void __launch_bounds__(threads, 1) dense_scores_kernel(
        const __grid_constant__ CUtensorMap rows_map,
        const __grid_constant__ CUtensorMap means_map,
        const ScoresInput in,
        DenseFound* const out) {
    constexpr int chunks = (steps + 3) / 4;
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<ScoresShared<chunks>*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const int row_blocks = (in.rows + block_rows - 1) / block_rows;
    const int tiles = in.products.k_padded / assign_columns;
    const int width = in.products.width;

    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&rows_map);
        ptx::tma_prefetch_map(&means_map);
        for (int i = 0; i < groups; i++) {
            ptx::mbarrier_init(&shared.rows_full[i], 1);
            ptx::mbarrier_init(&shared.rows_empty[i], 1);
        }
        for (int i = 0; i < scores_stages; i++) {
            ptx::mbarrier_init(&shared.full[i], 1);
            ptx::mbarrier_init(&shared.empty[i], groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<score_copy_registers>();
        if (threadIdx.x == 0) {
            copy_score_tiles<chunks>(
                    shared, &means_map, width, row_blocks, tiles);
        } else if (threadIdx.x == 32) {
            copy_score_rows<chunks>(shared, &rows_map, width, row_blocks);
        }
    } else {
        ptx::registers_take<score_registers>();
        compute_scores<steps, chunks>(shared, in, out, row_blocks, tiles);
    }
}

template <int steps>
cudaError_t launch_scores(
        int64_t rows,
        const DenseProducts& products,
        int multiprocessors,
        cudaStream_t stream) {
    const auto kernel = dense_scores_kernel<steps>;
    const int bytes = sizeof(ScoresShared<(steps + 3) / 4>) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int columns = 3 * products.width;
    const int row_blocks = (rows + block_rows - 1) / block_rows;
    const int grid =
            row_blocks < multiprocessors ? row_blocks : multiprocessors;
    kernel<<<grid, threads, bytes, stream>>>(
            tensor_map(products.rows, rows, columns, 64),
            tensor_map(
                    products.means,
                    products.k_padded,
                    columns,
                    assign_sm90_box_columns),
            {(int)rows, products},
            products.found);
    return cudaGetLastError();
}

} // namespace

} // namespace sm90

cudaError_t launch_dense_scores_sm90(
        int64_t rows,
        const DenseProducts& products,
        int multiprocessors,
        cudaStream_t stream) {
    switch (products.width / 16) {
#define FAISS_FLASH_CASE(steps)           \
    case steps:                           \
        return sm90::launch_scores<steps>( \
                rows, products, multiprocessors, stream);
        FAISS_FLASH_CASE(1)
        FAISS_FLASH_CASE(2)
        FAISS_FLASH_CASE(3)
        FAISS_FLASH_CASE(4)
        FAISS_FLASH_CASE(5)
        FAISS_FLASH_CASE(6)
        FAISS_FLASH_CASE(7)
        FAISS_FLASH_CASE(8)
#undef FAISS_FLASH_CASE
    }
    const int columns = 3 * products.width;
    return sm90::launch_deep<sm90::ThreadScores>(
            tensor_map(products.rows, rows, columns, assign_sm90_box_rows),
            tensor_map(
                    products.means,
                    products.k_padded,
                    columns,
                    assign_sm90_box_columns),
            {(int)rows, products},
            products.found,
            multiprocessors,
            stream);
}

} // namespace faiss_flash
