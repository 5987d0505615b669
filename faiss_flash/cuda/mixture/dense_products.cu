#include <faiss_flash/cuda/mixture/dense_products.cuh>
#include <faiss_flash/cuda/tile_sm80.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// One warp: x' in two halves each. `low_first`: high, low, high instead of
/// high, high, low. Returns ‖x'‖².
__device__ float split_row(
        const float* x,
        int d,
        int d_padded,
        Shift shift,
        bool low_first,
        __half* out) {
    float norm2 = 0;
    for (int j = threadIdx.x % 32; j < d_padded; j += 32) {
        const float value =
                j < d ? (x[j] - shift.offset[j]) * shift.scale : 0;
        const __half high = __float2half_rn(value);
        const __half low = __float2half_rn(value - __half2float(high));
        out[j] = high;
        out[d_padded + j] = low_first ? low : high;
        out[2 * d_padded + j] = low_first ? high : low;
        norm2 += value * value;
    }
    return warp_sum(norm2);
}

__global__ void split_rows_kernel(
        const MixtureRowsInput in,
        int64_t rows,
        const uint32_t* numbers,
        const DenseProducts products) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= rows) {
        return;
    }
    const float norm2 = split_row(
            in.x + (int64_t)numbers[i] * in.d,
            in.d,
            products.d_padded,
            products.shift,
            false,
            products.rows + i * 3 * products.d_padded);
    if (threadIdx.x % 32 == 0) {
        products.norm2[i] = norm2;
    }
}

__global__ void split_means_kernel(
        const MixtureRowsInput in,
        const DenseProducts products) {
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (c >= products.k_padded) {
        return;
    }
    const bool real = c < in.k;
    const double norm2 = split_row(
            in.means + (int64_t)(real ? c : 0) * in.d,
            real ? in.d : 0,
            products.d_padded,
            products.shift,
            true,
            products.means + (int64_t)c * 3 * products.d_padded);
    if (threadIdx.x % 32 == 0) {
        const double scale = products.shift.scale;
        float2 column = make_float2(-INFINITY, 0);
        if (real) {
            const double h = in.components[c].precision / (scale * scale);
            column = make_float2(in.components[c].log_scale - h * norm2, h);
        }
        products.columns[c] = column;
    }
}

/// Largest score, the component that has it (the lowest among equals), and
/// Σ exp(score − top).
struct RowScores {
    float top, sum;
    int best;

    __device__ void merge(const RowScores& other) {
        const float larger = fmaxf(top, other.top);
        sum = sum * expf(top - larger) + other.sum * expf(other.top - larger);
        best = other.top > top || (other.top == top && other.best < best)
                ? other.best
                : best;
        top = larger;
    }
};

__global__ void __launch_bounds__(sm80_threads) dense_scores_kernel(
        const MixtureRowsInput in,
        int64_t rows,
        const uint32_t* numbers,
        const DenseProducts products,
        const MixtureRowsOutput out) {
    __shared__ union {
        sm80::Stage stage[sm80::stages];
        RowScores right[sm80_rows]; // of the warps at columns 64 to 127
    } shared;
    PreparedCentroids means;
    means.k_padded = products.k_padded;
    means.halves = products.means;
    const int width = 3 * products.d_padded;
    const int64_t first = (int64_t)blockIdx.x * sm80_rows;
    const Sm80Lane at;
    RowScores found[2][2];
    float norm2[2][2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t r = first + at.row(i / 2, i % 2);
        found[i / 2][i % 2] = {-3e38f, 0, 0x7fffffff};
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
                        RowScores& row = found[m][high];
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
                                const bool better = pair[e] > row.top;
                                row.top = better ? pair[e] : row.top;
                                row.best = better
                                        ? tile * assign_columns + column + e
                                        : row.best;
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
        RowScores& row = found[i / 2][i % 2];
#pragma unroll
        for (int step = 1; step < 4; step *= 2) {
            RowScores other;
            other.top = __shfl_xor_sync(0xffffffff, row.top, step);
            other.sum = __shfl_xor_sync(0xffffffff, row.sum, step);
            other.best = __shfl_xor_sync(0xffffffff, row.best, step);
            row.merge(other);
        }
        if (at.warp_column == 1 && at.lane % 4 == 0) {
            shared.right[at.row(i / 2, i % 2)] = row;
        }
    }
    __syncthreads(); // `right` is written
    if (at.warp_column == 0 && at.lane % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            RowScores& row = found[i / 2][i % 2];
            const int r = at.row(i / 2, i % 2);
            if (first + r < rows) {
                row.merge(shared.right[r]);
                const float log_density = row.top + logf(row.sum);
                const uint32_t number = numbers[first + r];
                const uint32_t best = min(row.best, in.k - 1);
                products.log_density[first + r] = log_density;
                out.log_density[number] = log_density;
                out.best[number] = best;
                if (out.members) {
                    atomicAdd(out.members + best, 1ull);
                }
            }
        }
    }
}

unsigned blocks_for(int64_t items, int per_block) {
    return (items + per_block - 1) / per_block;
}

} // namespace

cudaError_t launch_split_means(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        cudaStream_t stream) {
    split_means_kernel<<<
            blocks_for(products.k_padded, 8),
            256,
            0,
            stream>>>(in, products);
    return cudaGetLastError();
}

cudaError_t launch_dense_scores(
        const MixtureRowsInput& in,
        int64_t rows,
        const uint32_t* numbers,
        const DenseProducts& products,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    split_rows_kernel<<<blocks_for(rows, 8), 256, 0, stream>>>(
            in, rows, numbers, products);
    dense_scores_kernel<<<
            blocks_for(rows, sm80_rows),
            sm80_threads,
            0,
            stream>>>(in, rows, numbers, products, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
