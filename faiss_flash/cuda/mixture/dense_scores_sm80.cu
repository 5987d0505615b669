// Scores of dense rows with mma.sync.

#include <faiss_flash/cuda/mixture/dense_scores.cuh>
#include <faiss_flash/cuda/tile_sm80.cuh>

namespace faiss_flash {

namespace {

__global__ void __launch_bounds__(sm80_threads) dense_scores_kernel(
        int64_t rows,
        const DenseProducts products) {
    __shared__ union {
        sm80::Stage stage[sm80::stages];
        DenseFound right[sm80_rows]; // of the warps at columns 64 to 127
    } shared;
    PreparedCentroids means;
    means.k_padded = products.k_padded;
    means.halves = products.means;
    const int width = 3 * products.width;
    const int64_t first = (int64_t)blockIdx.x * sm80_rows;
    const Sm80Lane at;
    DenseFound found[2][2];
    float norm2[2][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t r = first + at.row(i / 2, i % 2);
        found[i / 2][i % 2] = nothing_found;
        norm2[i / 2][i % 2] = r < rows ? products.norm2[r] : 0;
    }
    for_each_tile_sm80(
            shared.stage,
            means,
            0,
            products.k_padded / assign_columns,
            width,
            [&](int r) {
                return first + r < rows
                        ? products.rows + (first + r) * width
                        : nullptr;
            },
            [&](int tile, float(&acc)[2][8][4], const Sm80Lane& lane) {
#pragma unroll
                for (int m = 0; m < 2; m++) {
#pragma unroll
                    for (int high = 0; high < 2; high++) {
                        DenseFound& row = found[m][high];
                        const float shift = -norm2[m][high];
                        const int64_t r = first + lane.row(m, high);
                        float* scores = products.scores +
                                r * products.k_padded + tile * assign_columns;
                        const float before = row.top;
#pragma unroll
                        for (int g = 0; g < 8; g++) {
                            const int column = lane.column(g, 0);
                            const float4 c =
                                    __ldg(reinterpret_cast<const float4*>(
                                            products.columns +
                                            tile * assign_columns + column));
                            float* pair = &acc[m][g][2 * high];
                            pair[0] = fmaf(
                                    c.y, fmaf(2, pair[0], shift), c.x);
                            pair[1] = fmaf(
                                    c.w, fmaf(2, pair[1], shift), c.z);
                            if (r < rows) {
                                *reinterpret_cast<float2*>(scores + column) =
                                        make_float2(pair[0], pair[1]);
                            }
#pragma unroll
                            for (int e = 0; e < 2; e++) {
                                see_score(
                                        row,
                                        pair[e],
                                        tile * assign_columns + column + e);
                            }
                        }
                        row.sum *= __expf(before - row.top);
#pragma unroll
                        for (int g = 0; g < 8; g++) {
#pragma unroll
                            for (int e = 0; e < 2; e++) {
                                row.sum += __expf(
                                        acc[m][g][2 * high + e] - row.top);
                            }
                        }
                    }
                }
            });
#pragma unroll
    for (int i = 0; i < 4; i++) {
        DenseFound& row = found[i / 2][i % 2];
        merge_lanes(row);
        if (at.warp_column == 1 && at.lane % 4 == 0) {
            shared.right[at.row(i / 2, i % 2)] = row;
        }
    }
    __syncthreads(); // `right` is written
    if (at.warp_column == 0 && at.lane % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            DenseFound& row = found[i / 2][i % 2];
            const int r = at.row(i / 2, i % 2);
            if (first + r < rows) {
                merge_found(row, shared.right[r]);
                products.found[first + r] = row;
            }
        }
    }
}

} // namespace

cudaError_t launch_dense_scores_sm80(
        int64_t rows,
        const DenseProducts& products,
        cudaStream_t stream) {
    dense_scores_kernel<<<
            (rows + sm80_rows - 1) / sm80_rows,
            sm80_threads,
            0,
            stream>>>(rows, products);
    return cudaGetLastError();
}

} // namespace faiss_flash
