// Σ r·x of many dense rows as a product of two matrices, on Hopper: shares,
// transposed, from registers, where they have been made from scores, and rows
// from shared memory. Row m of 16 of an operand is component 2m, or 2m − 15.
//
// One thread block: 128 components × 128 columns over one piece. One
// warpgroup copies scores and rows, 32 at a time; two compute, 64 components
// each. Shares of 32 rows are made while the products of those before run,
// their own and the other warpgroup's.

#include <cstddef>

#include <faiss_flash/cuda/mixture/dense_scores.cuh>
#include <faiss_flash/cuda/sm90.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace {

constexpr int stage_rows = 32; ///< whose shares are made at once
constexpr int stages = 6;
constexpr int run_stages = 4; ///< that the matrix unit adds up
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
        float scores[stage_rows / 16][tile / 16][256]; ///< see score_place()
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
#pragma unroll 1 // few registers are left to this warp
        for (int b = 0; b < stage_rows / 16; b++) {
            ptx::bulk_load(
                    shared.stage[ring.slot].scores[b],
                    products.scores +
                            score_place(
                                    row + 16 * b,
                                    blockIdx.x * tile,
                                    products.k_padded),
                    tile * 16 * sizeof(float),
                    full);
        }
#pragma unroll 1
        for (int part = 0; part < 2; part++) {
#pragma unroll 1
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

/// The thread's part of what it makes of scores.
struct Totals {
    float count[2] = {}, energy[2] = {}; ///< energy: times the precision
};

/// Shares, in halves: operands of 16 rows each.
struct Shares {
    uint32_t high[stage_rows / 16][4], low[stage_rows / 16][4];

    /// @param scores, log_density  addresses of the thread's first ones
    __device__ __forceinline__ void make(
            uint32_t scores,
            uint32_t log_density,
            const float (&log_scale)[2],
            Totals& totals,
            uint32_t& kept) {
        const float log2e = 1.4426950408889634f;
        const float log2_scale = 10;
        static_assert(dense_share_scale == 1024);
#pragma unroll
        for (int t = 0; t < stage_rows / 16; t++) {
            const float2 d0 = ptx::load_shared<float2>(
                    log_density + 16 * t * sizeof(float));
            const float2 d1 = ptx::load_shared<float2>(
                    log_density + (16 * t + 8) * sizeof(float));
            // rows 2q and 2q + 8 of both components, and those after them
            const uint32_t at = scores + t * (tile * 16 * sizeof(float));
            const float4 first = ptx::load_shared<float4>(at);
            const float4 second =
                    ptx::load_shared<float4>(at + 128 * sizeof(float));
            const float values[2][2][2] = { // component, 8 rows further, row
                    {{first.x, second.x}, {first.z, second.z}},
                    {{first.y, second.y}, {first.w, second.w}}};
            const float densities[2][2] = {{d0.x, d0.y}, {d1.x, d1.y}};
#pragma unroll
            for (int c = 0; c < 2; c++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float p[2];
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        const float v = values[c][half][r];
                        p[r] = exp2f_fast(
                                fmaf(v - densities[half][r],
                                     log2e,
                                     log2_scale));
                        totals.count[c] += p[r];
                        // rounding may make it negative, and NaN becomes 0
                        const float nats =
                                fminf(fmaxf(log_scale[c] - v, 0), 3e38f);
                        totals.energy[c] = fmaf(p[r], nats, totals.energy[c]);
                        kept += p[r] >= dense_least_share * dense_share_scale;
                    }
                    const float2 pair = make_float2(p[0], p[1]);
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

/// Products of stage_rows rows, issued and committed.
__device__ __forceinline__ void issue_rows(
        float (&acc)[64],
        const Shares& shares,
        uint32_t rows,
        bool accumulate) {
    constexpr uint32_t part = 2 * chunk_bytes / 16;
    ptx::wgmma_fence();
#pragma unroll
    for (int t = 0; t < stage_rows / 16; t++) {
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
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x % 128 / 32;
    const int component = blockIdx.x * tile + group * group_components +
            warp * 16 + lane / 4 * 2;
    float log_scale[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int c = component + e;
        log_scale[e] = c < in.k ? in.components[c].log_scale : 0;
    }
    const uint32_t stages_at = ptx::operand_address(shared.stage);
    const uint32_t scores_at = ptx::shared_address(shared.stage) +
            offsetof(SumsShared::Stage, scores) +
            ((group * 4 + warp) * 256 + lane * 4) * sizeof(float);
    const uint32_t density_at = ptx::shared_address(shared.log_density) +
            lane % 4 * 2 * sizeof(float);
    uint32_t kept = 0;
    sm90::Ring ring;
    auto release = [&](int slot) {
        __syncwarp(); // every lane has read its part
        if (lane == 0) {
            ptx::mbarrier_arrive(&shared.empty[slot]);
        }
    };
    float total[64] = {};
    double counts[2] = {}, energies[2] = {};
    for (int i = 0; i < steps; i += run_stages) {
        float acc[64];
        Totals totals;
        Shares shares[2];
        int slots[run_stages];
#pragma unroll
        for (int q = 0; q < run_stages; q++) {
            slots[q] = ring.slot;
            ptx::mbarrier_wait(&shared.full[ring.slot], ring.parity);
            if (q > 1) {
                ptx::wgmma_wait<1>(); // shares[q % 2] have been read
                release(slots[q - 2]);
            }
            shares[q % 2].make(
                    scores_at + ring.slot * sizeof(SumsShared::Stage),
                    density_at + ring.slot * stage_rows * sizeof(float),
                    log_scale,
                    totals,
                    kept);
            issue_rows(
                    acc,
                    shares[q % 2],
                    stages_at + ring.slot * (sizeof(SumsShared::Stage) / 16),
                    q > 0);
            ring.advance(stages);
        }
        ptx::wgmma_wait<0>();
        release(slots[run_stages - 2]);
        release(slots[run_stages - 1]);
        // rounded here; the matrix unit truncates
#pragma unroll
        for (int j = 0; j < 64; j++) {
            total[j] += acc[j];
        }
#pragma unroll
        for (int e = 0; e < 2; e++) {
            counts[e] += totals.count[e];
            energies[e] += totals.energy[e];
        }
    }
    const double unit = 1 / (double)dense_share_scale;
    const int parts = in.half_precisions ? 2 : 1;
    const int part_columns = products.width / parts;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int c = component + e;
        const double count = sum_of_four(counts[e]);
        const double energy = sum_of_four(energies[e]);
        if (c >= in.k) {
            continue;
        }
        if (blockIdx.y == 0 && lane % 4 == 0) {
            double* of = scratch.scalars + (int64_t)piece * 2 * in.k + c;
            of[0] = count * unit;
            of[in.k] = energy * unit / in.components[c].precision;
        }
        double* row = scratch.partial +
                ((int64_t)piece * in.k + c) * parts * in.d + 2 * (lane % 4);
#pragma unroll
        for (int g = 0; g < 16; g++) {
            // eight columns never belong to two parts
            int column = column0 + 8 * g;
            double* to = row + column;
            if (column >= part_columns && parts == 2) {
                column -= part_columns;
                to = row + in.d + column;
            }
#pragma unroll
            for (int p = 0; p < 2; p++) {
                if (column + 2 * (lane % 4) + p < in.d &&
                    column < part_columns) {
                    to[p] = total[4 * g + 2 * e + p] * unit;
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
    // whole runs, as pieces are
    constexpr int acc_rows = run_stages * stage_rows;
    const int steps = (scratch.pieces[piece].count + acc_rows - 1) /
            acc_rows * run_stages;
    if (threadIdx.x == 0) {
        ptx::tma_prefetch_map(&map);
        for (int i = 0; i < stages; i++) {
            ptx::mbarrier_init(&shared.full[i], 1);
            ptx::mbarrier_init( // every warp's
                    &shared.empty[i],
                    4 * compute_groups);
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
