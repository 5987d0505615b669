// Σ r·x of many dense rows as a product of two matrices, on Hopper: shares,
// transposed, from registers, where they have been made from scores, and rows
// from shared memory.
//
// One thread block: 128 components × 128 columns over one piece. One
// warpgroup copies rows, 64 at a time; two compute, 64 components each. Shares
// of 32 rows are made while the products of those before run, their own and
// the other warpgroup's.

#include <cstddef>

#include <faiss_flash/cuda/mixture/dense_scores.cuh>
#include <faiss_flash/cuda/sm90.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace {

constexpr int stage_rows = 64;
constexpr int stages = 6; // pairs of them are freed
constexpr int group_components = 64;
constexpr int compute_groups = 2;
constexpr int tile = group_components * compute_groups;
static_assert(tile == assign_columns);
constexpr int tile_columns = 2 * sm90::chunk;
constexpr int threads = 128 * (compute_groups + 1);
constexpr int chunk_bytes = stage_rows * sm90::chunk * 2;

struct SumsShared {
    struct Stage {
        uint8_t x[2][2][chunk_bytes]; ///< high and low; 64 columns each
    };
    alignas(1024) Stage stage[stages];
    alignas(16) float log_density[stages][stage_rows];
    uint64_t full[stages], empty[stages];
};

constexpr uint32_t stage_bytes =
        sizeof(SumsShared::Stage) + stage_rows * sizeof(float);

/// Describes an operand whose rows are 16 steps of the product: groups of 8
/// rows of 64 halves (128-byte swizzle) 1024 bytes apart, the next 64 columns
/// `chunk_bytes` further.
__device__ __forceinline__ uint64_t rows_operand(uint32_t at) {
    const uint32_t group_stride = 1024 >> 4;
    const uint32_t swizzle_128 = 1u << 30;
    // in place of the 1 that operand_address() has there
    const uint32_t chunk_stride = ((chunk_bytes >> 4) - 1) << 16;
    return uint64_t(swizzle_128 | group_stride) << 32 | (at + chunk_stride);
}

/// Rows [first, first + 64) of the batch in stage after stage.
__device__ void copy_loop(
        SumsShared& shared,
        const CUtensorMap* map,
        const DenseProducts& products,
        int64_t first,
        int steps,
        int column0) {
    sm90::Ring ring;
    for (int i = 0; i < steps; i++) {
        const int64_t row = first + i * stage_rows;
        uint64_t* full = &shared.full[ring.slot];
        ptx::mbarrier_wait(&shared.empty[ring.slot], ring.parity ^ 1);
        ptx::mbarrier_arrive_expect(full, stage_bytes);
        ptx::bulk_load(
                shared.log_density[ring.slot],
                products.log_density + row,
                stage_rows * sizeof(float),
                full);
        for (int part = 0; part < 2; part++) {
            for (int c = 0; c < 2; c++) {
                ptx::tma_load(
                        shared.stage[ring.slot].x[part][c],
                        map,
                        full,
                        part * products.width + column0 + c * sm90::chunk,
                        row);
            }
        }
        ring.advance(stages);
    }
}

constexpr int step_rows = 32; ///< whose shares are made at once

/// Scores of step_rows rows: of each 16, rows 2q, 2q + 1, 2q + 8 and 2q + 9 (q =
/// lane % 4) for each of the thread's two components.
struct Scores {
    float4 value[step_rows / 16][2]; ///< 16 rows, component

    /// @param from  of the thread's first row and component; moved on
    __device__ __forceinline__ void load(const float*& from, int k_padded) {
#pragma unroll
        for (int t = 0; t < step_rows / 16; t++) {
            const float4* rows = reinterpret_cast<const float4*>(from);
            value[t][0] = __ldcs(rows);
            value[t][1] = __ldcs(rows + 8 * 16 / 4);
            from += 16 * (int64_t)k_padded;
        }
    }
};

/// The thread's part of what it makes of scores.
struct Totals {
    float count[2] = {}, energy[2] = {}; ///< energy: times the precision
    uint32_t kept = 0;
};

/// Shares, in halves: operands of 16 rows each.
struct Shares {
    uint32_t high[step_rows / 16][4], low[step_rows / 16][4];

    __device__ __forceinline__ void make(
            const Scores& scores,
            uint32_t log_density,
            const float (&log_scale)[2],
            Totals& totals) {
        const float log2e = 1.4426950408889634f;
        const float log2_scale = 10;
        static_assert(dense_share_scale == 1024);
#pragma unroll
        for (int t = 0; t < step_rows / 16; t++) {
            const float2 d0 = ptx::load_shared<float2>(
                    log_density + 16 * t * sizeof(float));
            const float2 d1 = ptx::load_shared<float2>(
                    log_density + (16 * t + 8) * sizeof(float));
            const float of_row[4] = {d0.x, d1.x, d0.y, d1.y};
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const float4 of = scores.value[t][c];
                const float values[4] = {of.x, of.y, of.z, of.w};
                float p[4];
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    const float v = values[r];
                    p[r] = exp2f_fast(
                            fmaf(v - of_row[r], log2e, log2_scale));
                    totals.count[c] += p[r];
                    // rounding may make it negative, and NaN becomes 0
                    const float nats =
                            fminf(fmaxf(log_scale[c] - v, 0), 3e38f);
                    totals.energy[c] = fmaf(p[r], nats, totals.energy[c]);
                    totals.kept +=
                            p[r] >= dense_least_share * dense_share_scale;
                }
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const float2 pair =
                            make_float2(p[half], p[2 + half]);
                    const __half2 h = __float22half2_rn(pair);
                    const float2 back = __half22float2(h);
                    const __half2 l = __float22half2_rn(
                            make_float2(pair.x - back.x, pair.y - back.y));
                    high[t][c + 2 * half] = bits(h);
                    low[t][c + 2 * half] = bits(l);
                }
            }
        }
    }

    __device__ static float exp2f_fast(float x) {
        float y;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
        return y;
    }
    __device__ static uint32_t bits(const __half2& h) {
        return *reinterpret_cast<const uint32_t*>(&h);
    }
};

/// Products of step_rows rows, issued and committed.
__device__ __forceinline__ void issue_rows(
        float (&acc)[64],
        const Shares& shares,
        uint32_t rows,
        bool accumulate) {
    constexpr uint32_t part = 2 * chunk_bytes / 16;
    ptx::wgmma_fence();
#pragma unroll
    for (int t = 0; t < step_rows / 16; t++) {
        const uint32_t at = rows + t * (16 * sm90::chunk * 2 / 16);
        ptx::wgmma_registers_64x128x16(
                acc, shares.high[t], rows_operand(at), accumulate || t > 0);
        ptx::wgmma_registers_64x128x16(
                acc, shares.low[t], rows_operand(at), true);
        ptx::wgmma_registers_64x128x16(
                acc, shares.high[t], rows_operand(at + part), true);
    }
    ptx::wgmma_commit();
}

/// Over the four threads that share components.
template <class T>
__device__ T sum_of_four(T value) {
    value += __shfl_xor_sync(0xffffffff, value, 1);
    return value + __shfl_xor_sync(0xffffffff, value, 2);
}

__device__ __forceinline__ void compute_loop(
        SumsShared& shared,
        const MixtureRowsInput& in,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const MixtureRowsOutput& out,
        int piece,
        int first,
        int steps,
        int column0) {
    const int group = sm90::warpgroup() - 1;
    const bool leader = threadIdx.x % 128 == 0;
    const int lane = threadIdx.x % 32;
    const int component = blockIdx.x * tile + group * group_components +
            threadIdx.x % 128 / 32 * 16 + lane / 4;
    float log_scale[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int c = component + 8 * e;
        log_scale[e] = c < in.k ? in.components[c].log_scale : 0;
    }
    const float* from = products.scores +
            score_place(first, component & ~15, products.k_padded) +
            lane / 4 * 16 + lane % 4 * 4;
    const uint32_t stages_at = ptx::operand_address(shared.stage);
    const uint32_t density_at = ptx::shared_address(shared.log_density) +
            lane % 4 * 2 * sizeof(float);
    uint32_t kept = 0;
    sm90::Ring ring;
    Scores scores[2];
    scores[0].load(from, products.k_padded);
    scores[1].load(from, products.k_padded);
    for (int i0 = 0; i0 < steps; i0 += dense_run_rows / stage_rows) {
        const int i1 = min(i0 + dense_run_rows / stage_rows, steps);
        float total[64] = {};
        Totals totals;
        for (int i = i0; i < i1; i += 2) {
            float acc[64];
            Shares shares[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
                const uint32_t densities = density_at +
                        ring.slot * stage_rows * sizeof(float);
                const uint32_t rows = stages_at +
                        ring.slot * (sizeof(SumsShared::Stage) / 16);
#pragma unroll
                for (int q = 0; q < 2; q++) {
                    if (half > 0) {
                        ptx::wgmma_wait<1>(); // shares[q] have been read
                    }
                    shares[q].make(
                            scores[q],
                            densities + q * step_rows * sizeof(float),
                            log_scale,
                            totals);
                    if (half == 0 || i + 2 < steps) {
                        scores[q].load(from, products.k_padded);
                    }
                    issue_rows(
                            acc,
                            shares[q],
                            rows + q * (step_rows * sm90::chunk * 2 / 16),
                            half + q > 0);
                }
                ring.advance(stages);
            }
            ptx::wgmma_wait<0>();
            if (leader) { // a pair of stages is free
                const int read = (ring.slot + stages - 2) % stages;
                ptx::mbarrier_arrive(&shared.empty[read]);
                ptx::mbarrier_arrive(&shared.empty[read + 1]);
            }
            // rounded here; the matrix unit truncates
#pragma unroll
            for (int j = 0; j < 64; j++) {
                total[j] += acc[j];
            }
        }
        kept += totals.kept;
        const double unit = 1 / (double)dense_share_scale;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            // not known before: all addresses at once are too many
            int tile_column = column0;
            asm volatile("" : "+r"(tile_column));
            const int c = component + 8 * e;
            const double count = sum_of_four((double)totals.count[e]);
            const double energy = sum_of_four((double)totals.energy[e]);
            if (c >= in.k) {
                continue;
            }
            if (blockIdx.y == 0 && lane % 4 == 0) {
                double* of = scratch.scalars + (int64_t)piece * 2 * in.k + c;
                of[0] = (i0 > 0 ? of[0] : 0) + count * unit;
                of[in.k] = (i0 > 0 ? of[in.k] : 0) +
                        energy * unit / in.components[c].precision;
            }
            const int parts = in.half_precisions ? 2 : 1;
            const int part_columns = products.width / parts;
            double* row = scratch.partial +
                    ((int64_t)piece * in.k + c) * parts * in.d +
                    2 * (lane % 4);
#pragma unroll
            for (int g = 0; g < 16; g++) {
                // eight columns never belong to two parts
                int column = tile_column + 8 * g;
                double* first_sum = row + column;
                if (column >= part_columns && parts == 2) {
                    column -= part_columns;
                    first_sum = row + in.d + column;
                }
#pragma unroll
                for (int p = 0; p < 2; p++) {
                    if (column + 2 * (lane % 4) + p < in.d &&
                        column < part_columns) {
                        double& sum = first_sum[p];
                        sum = (i0 > 0 ? sum : 0) +
                                total[4 * g + 2 * e + p] * unit;
                    }
                }
            }
        }
    }
    if (blockIdx.y > 0) {
        return;
    }
    kept = __reduce_add_sync(0xffffffff, kept);
    if (lane == 0) {
        atomicAdd(&out.totals->entries, (unsigned long long)kept);
    }
}

__global__ void __launch_bounds__(threads, 1) dense_sums_kernel(
        const __grid_constant__ CUtensorMap map,
        const MixtureRowsInput in,
        const DenseProducts products,
        const DenseScratch scratch,
        const MixtureRowsOutput out) {
    extern __shared__ uint8_t raw[];
    auto& shared = *reinterpret_cast<SumsShared*>(
            (reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
    const int piece = blockIdx.z;
    const int64_t first = piece * products.piece_rows;
    const int column0 = blockIdx.y * tile_columns;
    // pairs of stages; pieces are whole pairs of them
    const int steps =
            (scratch.pieces[piece].count + 2 * stage_rows - 1) /
            (2 * stage_rows) * 2;
    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&map);
        for (int i = 0; i < stages; i++) {
            ptx::mbarrier_init(&shared.full[i], 1);
            ptx::mbarrier_init(&shared.empty[i], compute_groups);
        }
        ptx::fence_barrier_init();
    }
    __syncthreads(); // barriers are initialised before anyone waits on them

    if (threadIdx.x < 128) {
        ptx::registers_give<24>();
        if (threadIdx.x == 0) {
            copy_loop(shared, &map, products, first, steps, column0);
        }
    } else {
        ptx::registers_take<240>();
        compute_loop(
                shared,
                in,
                products,
                scratch,
                out,
                piece,
                first,
                steps,
                column0);
    }
}

} // namespace

cudaError_t launch_dense_sums_sm90(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    const int bytes = sizeof(SumsShared) + 1024;
    const cudaError_t error = cudaFuncSetAttribute(
            dense_sums_kernel,
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const dim3 grid(
            products.k_padded / tile,
            (products.width + tile_columns - 1) / tile_columns,
            pieces);
    dense_sums_kernel<<<grid, threads, bytes, stream>>>(
            tensor_map(
                    products.rows,
                    pieces * products.piece_rows,
                    3 * products.width,
                    stage_rows),
            in,
            products,
            scratch,
            out);
    return cudaGetLastError();
}

} // namespace faiss_flash
