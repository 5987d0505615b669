#pragma once

// Scores of 128 rows against all centroids with the instructions of sm_80
// (mma.sync, cp.async), which every later GPU has. Used for assignment where
// the sm_90 kernel does not apply, and for listing the candidates of the
// re-check everywhere.
//
// 8 warps, 4 along the rows × 2 along the centroids, 32 × 64 scores each.
// Operands pass through shared memory 32 dimensions at a time, three stages
// deep.

#include <faiss_flash/cuda/assign.cuh>
#include <faiss_flash/cuda/ptx/mma.cuh>

namespace faiss_flash {

constexpr int sm80_rows = 128;
constexpr int sm80_threads = 256;

namespace sm80 {

constexpr int depth = 32; // halves of a row per stage: 64 bytes, 4 units
constexpr int stages = 3;

struct alignas(16) Stage {
    uint8_t rows[sm80_rows * depth * 2];
    uint8_t tile[assign_columns * depth * 2];
};

/// Byte of 16-byte unit `unit` of `row`, spread over the banks so that the
/// eight rows that ldmatrix reads together do not collide.
__device__ inline int unit_offset(int row, int unit) {
    return row * depth * 2 + ((unit ^ (row >> 1 & 3)) << 4);
}

/// Copy 128 rows × 32 halves; row(i) gives the source row or nullptr.
template <class Row>
__device__ void copy_operand(
        uint8_t* to,
        int first_half,
        int d_padded,
        Row&& row) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int at = threadIdx.x + i * sm80_threads;
        const int r = at / 4, unit = at % 4;
        const __half* from = row(r);
        const int column = first_half + unit * 8;
        const bool valid = from != nullptr && column < d_padded;
        ptx::copy_async_16(
                to + unit_offset(r, unit),
                valid ? from + column : nullptr,
                valid);
    }
}

} // namespace sm80

/// Where a thread's dot products acc[m][g][2·high + e] belong.
struct Sm80Lane {
    int warp_row = threadIdx.x / 32 % 4;
    int warp_column = threadIdx.x / 128;
    int lane = threadIdx.x % 32;

    /// Row, of the block's 128, of acc[m][·][2·high + ·].
    __device__ int row(int m, int high) const {
        return warp_row * 32 + m * 16 + high * 8 + lane / 4;
    }
    /// Position of acc[·][g][2·high + e] among the thread's columns of a
    /// tile, as in a key.
    __device__ int within(int g, int e) const {
        return (warp_column * 8 + g) * 2 + e;
    }
    /// Column, of the tile's 128, of acc[·][g][2·high + e].
    __device__ int column(int g, int e) const {
        return warp_column * 64 + g * 8 + 2 * (lane % 4) + e;
    }
};

/// use(tile, acc, lane) after each tile of centroids in [tile0, tile1), with
/// the warp's 32 × 64 dot products. row(i): halves of the block's row i, or
/// nullptr.
/// @param stage  sm80::stages of them in shared memory, free again after
template <class Row, class Use>
__device__ void for_each_tile_sm80(
        sm80::Stage* stage,
        const PreparedCentroids& centroids,
        int tile0,
        int tile1,
        int d_padded,
        Row&& row,
        Use&& use) {
    const Sm80Lane at;
    const int steps = (d_padded + sm80::depth - 1) / sm80::depth;
    const int total = (tile1 - tile0) * steps;

    auto copy = [&](int i) {
        if (i < total) {
            const int t = tile0 + i / steps, first = i % steps * sm80::depth;
            sm80::Stage& to = stage[i % sm80::stages];
            sm80::copy_operand(to.rows, first, d_padded, row);
            sm80::copy_operand(to.tile, first, d_padded, [&](int r) {
                return centroids.halves +
                        (int64_t)(t * assign_columns + r) * d_padded;
            });
        }
        ptx::copy_async_commit();
    };

    for (int i = 0; i < sm80::stages - 1; i++) {
        copy(i);
    }
    float acc[2][8][4];
    for (int i = 0; i < total; i++) {
        ptx::copy_async_wait<sm80::stages - 2>();
        __syncthreads(); // stage i is there; stage i − 1 is free again
        copy(i + sm80::stages - 1);
        if (i % steps == 0) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
#pragma unroll
                for (int g = 0; g < 8; g++) {
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        acc[m][g][e] = 0;
                    }
                }
            }
        }
        const sm80::Stage& now = stage[i % sm80::stages];
#pragma unroll
        for (int s = 0; s < sm80::depth / 16; s++) {
            uint32_t a[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const int r = at.warp_row * 32 + m * 16 + at.lane % 16;
                ptx::load_matrix_x4(
                        a[m],
                        now.rows + sm80::unit_offset(r, 2 * s + at.lane / 16));
            }
#pragma unroll
            for (int g = 0; g < 8; g += 2) {
                uint32_t b[4]; // two groups of 8 columns × 16 dimensions
                const int c = at.warp_column * 64 + g * 8 + at.lane / 16 * 8 +
                        at.lane % 8;
                ptx::load_matrix_x4(
                        b,
                        now.tile +
                                sm80::unit_offset(c, 2 * s + at.lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    ptx::mma_16x8x16(acc[m][g], a[m], b[0], b[1]);
                    ptx::mma_16x8x16(acc[m][g + 1], a[m], b[2], b[3]);
                }
            }
        }
        if (i % steps == steps - 1) {
            use(tile0 + i / steps, acc, at);
        }
    }
    ptx::copy_async_wait<0>();
    __syncthreads(); // nobody reads the stages any more
}

} // namespace faiss_flash
