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

/// Scores of a half tile into the two rows' running best.
__device__ __forceinline__ void reduce_scores(
        const float (&acc)[64],
        const float* alpha,
        float beta,
        uint32_t keep,
        int tile,
        Top2& low,
        Top2& high) {
    const int before_low = low.best, before_high = high.best;
#pragma unroll
    for (int g = 0; g < 16; g++) {
        const float2 a = __ldg(reinterpret_cast<const float2*>(alpha + 8 * g));
        low.add(make_key(fmaf(beta, acc[4 * g], a.x), 2 * g, keep),
                make_key(fmaf(beta, acc[4 * g + 1], a.y), 2 * g + 1, keep));
        high.add(
                make_key(fmaf(beta, acc[4 * g + 2], a.x), 2 * g, keep),
                make_key(fmaf(beta, acc[4 * g + 3], a.y), 2 * g + 1, keep));
    }
    low.tile = low.best != before_low ? tile : low.tile;
    high.tile = high.best != before_high ? tile : high.tile;
}

/// The rows, of a warpgroup's 128, of Top2 i: 0, 8 of the first half of 64,
/// then of the second.
__device__ inline int row_of_top(int i) {
    const int thread = threadIdx.x % 128;
    return thread / 32 * 16 + thread % 32 / 4 + (i / 2) * 64 + (i % 2) * 8;
}

__device__ inline void write_rows(
        const Top2 (&top)[4],
        int64_t first,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const RowBest found = merge_lanes(top[i]);
        const int64_t row = first + row_of_top(i);
        if (threadIdx.x % 4 == 0 && row < rows.n) {
            write_row(found, row, rows, centroids, out);
        }
    }
}

} // namespace sm90
} // namespace faiss_flash
