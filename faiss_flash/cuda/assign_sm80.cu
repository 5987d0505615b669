// Fused distance and argmin with the instructions of sm_80.

#include <cuda_runtime.h>

#include <algorithm>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/tile_sm80.cuh>

namespace faiss_flash {

namespace {

__global__ void __launch_bounds__(sm80_threads) assign_sm80_kernel(
        const PreparedRows rows,
        const PreparedCentroids centroids,
        const AssignOutput out) {
    __shared__ union {
        sm80::Stage stage[sm80::stages];
        RowBest right[sm80_rows]; // of the warps at columns 64 to 127
    } shared;
    RowBest* right = shared.right;
    const float beta = centroids.terms->beta;
    const uint32_t factor = centroids.key_factor;
    const int64_t blocks = (rows.n + sm80_rows - 1) / sm80_rows;
    for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const int64_t first = block * sm80_rows;
        const Sm80Lane at;
        Top2 top[2][2];
        // not left to Top2's initialisers: nvcc 13.0 runs them for the first
        // row of a two-dimensional array only
#pragma unroll
        for (int i = 0; i < 4; i++) {
            top[i / 2][i % 2] = Top2();
        }
        for_each_tile_sm80(
                shared.stage,
                centroids,
                0,
                centroids.k_padded / assign_columns,
                rows.d_padded,
                [&](int r) {
                    return first + r < rows.n
                            ? rows.halves + (first + r) * rows.d_padded
                            : nullptr;
                },
                [&](int tile, float(&acc)[2][8][4], const Sm80Lane& lane) {
                    const float* alpha =
                            centroids.alpha + tile * assign_columns;
#pragma unroll
                    for (int m = 0; m < 2; m++) {
#pragma unroll
                        for (int high = 0; high < 2; high++) {
                            Top2& best = top[m][high];
                            const uint32_t before = best.best;
#pragma unroll
                            for (int g = 0; g < 8; g++) {
                                uint32_t key[2];
#pragma unroll
                                for (int e = 0; e < 2; e++) {
                                    key[e] = make_key(
                                            fmaf(beta,
                                                 acc[m][g][2 * high + e],
                                                 alpha[lane.column(g, e)]),
                                            lane.within(g, e),
                                            factor);
                                }
                                best.add(key[0], key[1]);
                            }
                            best.tile = best.best != before ? tile : best.tile;
                        }
                    }
                });

        RowBest found[2][2];
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int high = 0; high < 2; high++) {
                found[m][high] = merge_lanes(top[m][high]);
                if (at.warp_column == 1 && at.lane % 4 == 0) {
                    right[at.row(m, high)] = found[m][high];
                }
            }
        }
        __syncthreads(); // `right` is written
        if (at.warp_column == 0 && at.lane % 4 == 0) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
#pragma unroll
                for (int high = 0; high < 2; high++) {
                    const int r = at.row(m, high);
                    if (first + r < rows.n) {
                        RowBest& row = found[m][high];
                        row.merge(
                                right[r].best,
                                right[r].second,
                                right[r].column);
                        write_row(row, first + r, rows, centroids, out);
                    }
                }
            }
        }
        __syncthreads(); // the stages may be written again
    }
}

} // namespace

cudaError_t launch_assign_sm80(
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        cudaStream_t stream) {
    const int64_t blocks = (rows.n + sm80_rows - 1) / sm80_rows;
    const int64_t grid = std::min<int64_t>(blocks, 1 << 20);
    assign_sm80_kernel<<<grid, sm80_threads, 0, stream>>>(
            rows, centroids, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
