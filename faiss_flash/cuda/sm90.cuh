#pragma once

// What the two Hopper kernels share: the ring of shared-memory buffers and
// the epilogue of 64 × 128 products.

#include <faiss_flash/cuda/assign.cuh>
#include <faiss_flash/cuda/ptx/tma.cuh>
#include <faiss_flash/cuda/ptx/wgmma.cuh>

namespace faiss_flash {
namespace sm90 {

constexpr int block_rows = 256;
constexpr int chunk = 64; // halves per 128-byte swizzled row

constexpr int groups = 4; ///< warpgroups that compute, 64 rows each
static_assert(groups * 64 == block_rows);
constexpr int threads = 128 * (groups + 1);
/// per thread, of the computing warpgroups and of the copying one
constexpr int compute_registers = 112, copy_registers = 24;

constexpr int row_chunk_bytes = block_rows * chunk * 2;
constexpr int tile_chunk_bytes = assign_columns * chunk * 2;

/// Position in a ring of buffers and the parity of its current use.
struct Ring {
    int slot = 0;
    uint32_t parity = 0;
    __device__ void advance(int size) {
        if (++slot == size) {
            slot = 0;
            parity ^= 1;
        }
    }
};

/// Which warpgroup this is, known to the compiler as the same for a warp.
__device__ __forceinline__ int warpgroup() {
    return __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
}

/// Scores of 64 rows into this thread's two rows' running best.
/// @param alpha_pair  g → alpha of columns 8g and 8g + 1 past the thread's
///                    first
template <class AlphaPair>
__device__ __forceinline__ void reduce_scores(
        const float (&acc)[64],
        AlphaPair&& alpha_pair,
        float beta,
        uint32_t factor,
        int tile,
        Top2& low,
        Top2& high) {
    const uint32_t before_low = low.best, before_high = high.best;
#pragma unroll
    for (int g = 0; g < 16; g++) {
        const float2 a = alpha_pair(g);
        low.add(make_key(fmaf(beta, acc[4 * g], a.x), 2 * g, factor),
                make_key(fmaf(beta, acc[4 * g + 1], a.y), 2 * g + 1, factor));
        high.add(
                make_key(fmaf(beta, acc[4 * g + 2], a.x), 2 * g, factor),
                make_key(fmaf(beta, acc[4 * g + 3], a.y), 2 * g + 1, factor));
    }
    low.tile = low.best != before_low ? tile : low.tile;
    high.tile = high.best != before_high ? tile : high.tile;
}

/// The lower of this thread's two rows of 64; the other is 8 further.
__device__ inline int row_of_thread() {
    return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
}

__device__ inline void write_row_of(
        const Top2& top,
        int64_t row,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out) {
    const RowBest found = merge_lanes(top);
    if (threadIdx.x % 4 == 0 && row < rows.n) {
        write_row(found, row, rows, centroids, out);
    }
}

} // namespace sm90
} // namespace faiss_flash
