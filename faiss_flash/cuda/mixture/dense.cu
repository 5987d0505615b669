#include <faiss_flash/cuda/mixture/block.cuh>
#include <faiss_flash/cuda/mixture/dense.cuh>
#include <faiss_flash/cuda/mixture/pairs.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int tile = 64; ///< rows, components or columns of a thread block
constexpr int depth = 16;

unsigned blocks_for(int64_t items, int per_block) {
    return (items + per_block - 1) / per_block;
}

/// 64 × 64 squared distances a block, 4 × 4 a thread.
template <bool diagonal>
__global__ void __launch_bounds__(threads) dense_distances_kernel(
        const MixtureRowsInput in,
        int64_t rows,
        const uint32_t* __restrict__ numbers,
        float* __restrict__ dist) {
    __shared__ float x[depth][tile + 4], c[depth][tile + 4];
    __shared__ float h[diagonal ? depth : 1][tile + 4];
    const int64_t row0 = (int64_t)blockIdx.y * tile;
    const int component0 = blockIdx.x * tile;
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    float sum[4][4] = {};
    for (int j0 = 0; j0 < in.d; j0 += depth) {
        // thread: one column of 4 vectors of each
        const int column = threadIdx.x % depth;
#pragma unroll
        for (int i = threadIdx.x / depth; i < tile; i += threads / depth) {
            const bool there = j0 + column < in.d;
            const bool real_row = there && row0 + i < rows;
            const bool real_component = there && component0 + i < in.k;
            x[column][i] = real_row
                    ? in.x[(int64_t)numbers[row0 + i] * in.d + j0 + column]
                    : 0;
            c[column][i] = real_component
                    ? in.means[(int64_t)(component0 + i) * in.d + j0 + column]
                    : 0;
            if constexpr (diagonal) {
                h[column][i] = real_component
                        ? in.half_precisions
                                  [(int64_t)(component0 + i) * in.d + j0 +
                                   column]
                        : 0;
            }
        }
        __syncthreads(); // the slice is there
        float part[4][4] = {};
#pragma unroll
        for (int j = 0; j < depth; j++) {
            const float4 a = *reinterpret_cast<const float4*>(&x[j][4 * ty]);
            const float4 b = *reinterpret_cast<const float4*>(&c[j][4 * tx]);
            const float av[4] = {a.x, a.y, a.z, a.w};
            const float bv[4] = {b.x, b.y, b.z, b.w};
            float hv[4] = {1, 1, 1, 1};
            if constexpr (diagonal) {
                const float4 of =
                        *reinterpret_cast<const float4*>(&h[j][4 * tx]);
                hv[0] = of.x, hv[1] = of.y, hv[2] = of.z, hv[3] = of.w;
            }
#pragma unroll
            for (int r = 0; r < 4; r++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float step = av[r] - bv[e];
                    part[r][e] = diagonal
                            ? fmaf(step * step, hv[e], part[r][e])
                            : fmaf(step, step, part[r][e]);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < 4; r++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                sum[r][e] += part[r][e];
            }
        }
        __syncthreads(); // nobody reads the slice any more
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int64_t row = row0 + 4 * ty + r;
            const int component = component0 + 4 * tx + e;
            if (row < rows && component < in.k) {
                dist[row * in.k + component] = sum[r][e];
            }
        }
    }
}

constexpr int share_threads = 128;

/// One thread block a row.
__global__ void __launch_bounds__(share_threads) dense_shares_kernel(
        const MixtureRowsInput in,
        const uint32_t* __restrict__ numbers,
        const MixtureRowsOutput out,
        const float* __restrict__ dist,
        float* __restrict__ shares) {
    const int64_t row = numbers[blockIdx.x];
    dist += (int64_t)blockIdx.x * in.k;
    shares += (int64_t)blockIdx.x * in.k;
    Top top = {-INFINITY, 0x7fffffff};
    for (int c = threadIdx.x; c < in.k; c += share_threads) {
        const ComponentTerms terms = in.components[c];
        top.see(terms.log_scale - terms.precision * dist[c], c);
    }
    top = block_top<share_threads>(top);
    const bool far = isinf(top.value);
    if (far) {
        // distances beyond single precision: then one component has all
        top = {-INFINITY, 0x7fffffff};
        for (int c = threadIdx.x; c < in.k; c += share_threads) {
            const ComponentTerms terms = in.components[c];
            top.see(terms.log_scale -
                            terms.precision * far_distance(in, row, c),
                    c);
        }
        top = block_top<share_threads>(top);
    }
    auto density = [&](int c) -> float {
        if (far) {
            return c == top.component ? 1 : 0;
        }
        const ComponentTerms terms = in.components[c];
        return expf(float(
                terms.log_scale - terms.precision * dist[c] - top.value));
    };
    // as for rows with lists: what lies below counts for nothing
    const float least = expf(-in.range);
    double mine = 0, counted = 0;
    for (int c = threadIdx.x; c < in.k; c += share_threads) {
        const float share = density(c);
        const bool counts = share >= least;
        mine += counts ? share : 0;
        counted += counts;
    }
    const double sum = block_sum<share_threads>(mine);
    const double n = block_sum<share_threads>(counted);
    const float weight = in.weights ? in.weights[row] : 1;
    double dropped = 0, kept = 0;
    for (int c = threadIdx.x; c < in.k; c += share_threads) {
        const float share = density(c);
        float r = share >= least ? share / sum : 0;
        if (r * n < in.most_drop) {
            dropped += r;
            r = 0;
        }
        kept += r > 0;
        shares[c] = r * weight;
    }
    dropped = block_sum<share_threads>(dropped);
    kept = block_sum<share_threads>(kept);
    if (threadIdx.x == 0) {
        dropped += n < in.k ? in.k * least : 0;
        out.set_row(row, top.value + log(sum), top.component);
        atomicAdd(&out.totals->entries, (unsigned long long)kept);
        out.totals->raise_dropped(dropped);
    }
}

/// 64 components × 64 columns of Σ shares·x over one piece; squares: of
/// Σ shares·(x − μ)², which follow the sums of all pieces.
template <bool squares>
__global__ void __launch_bounds__(threads) dense_sums_kernel(
        const MixtureRowsInput in,
        uint32_t first,
        const uint32_t* __restrict__ numbers,
        const DenseScratch scratch) {
    __shared__ float s[depth][tile], x[depth][tile];
    const DensePiece piece = scratch.pieces[blockIdx.z];
    const int component0 = blockIdx.x * tile, column0 = blockIdx.y * tile;
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    const int at = threadIdx.x % tile;
    double total[4][4] = {};
    float mean[4][4] = {};
    if constexpr (squares) {
#pragma unroll
        for (int p = 0; p < 4; p++) {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int component = component0 + 4 * ty + p;
                const int column = column0 + 4 * tx + q;
                mean[p][q] = component < in.k && column < in.d
                        ? in.means[(int64_t)component * in.d + column]
                        : 0;
            }
        }
    }
    for (int i0 = 0; i0 < (int)piece.count; i0 += run_rows) {
        const int end = min(i0 + run_rows, (int)piece.count);
        float sum[4][4] = {};
        for (int i = i0; i < end; i += depth) {
#pragma unroll
            for (int r = threadIdx.x / tile; r < depth;
                 r += threads / tile) {
                const bool there = i + r < end;
                const int64_t row = piece.first + i + r;
                s[r][at] = there && component0 + at < in.k
                        ? scratch.shares
                                  [(row - first) * in.k + component0 + at]
                        : 0;
                x[r][at] = there && column0 + at < in.d
                        ? in.x[(int64_t)numbers[row] * in.d + column0 + at]
                        : 0;
            }
            __syncthreads(); // the slice is there
#pragma unroll
            for (int r = 0; r < depth; r++) {
                const float4 a =
                        *reinterpret_cast<const float4*>(&s[r][4 * ty]);
                const float4 b =
                        *reinterpret_cast<const float4*>(&x[r][4 * tx]);
                const float av[4] = {a.x, a.y, a.z, a.w};
                const float bv[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
                for (int p = 0; p < 4; p++) {
#pragma unroll
                    for (int q = 0; q < 4; q++) {
                        float value = bv[q];
                        if constexpr (squares) {
                            const float step = value - mean[p][q];
                            value = fminf(step * step, 0x1p120f);
                        }
                        sum[p][q] = fmaf(av[p], value, sum[p][q]);
                    }
                }
            }
            __syncthreads(); // nobody reads the slice any more
        }
#pragma unroll
        for (int p = 0; p < 4; p++) {
#pragma unroll
            for (int q = 0; q < 4; q++) {
                total[p][q] += sum[p][q];
            }
        }
    }
    const int64_t values = (int64_t)in.k * in.d;
    double* partial = scratch.partial +
            (blockIdx.z + (squares ? gridDim.z : 0)) * values;
#pragma unroll
    for (int p = 0; p < 4; p++) {
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const int component = component0 + 4 * ty + p;
            const int column = column0 + 4 * tx + q;
            if (component < in.k && column < in.d) {
                partial[(int64_t)component * in.d + column] = total[p][q];
            }
        }
    }
}

/// Σ shares and Σ shares·dist of a piece; one thread a component.
__global__ void dense_scalars_kernel(
        const MixtureRowsInput in,
        uint32_t first,
        const DenseScratch scratch) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= in.k) {
        return;
    }
    const DensePiece piece = scratch.pieces[blockIdx.y];
    double count = 0, energy = 0;
#pragma unroll 8
    for (uint32_t i = 0; i < piece.count; i++) {
        const int64_t at = (int64_t)(piece.first - first + i) * in.k + c;
        const double share = scratch.shares[at];
        count += share;
        energy += share > 0 ? share * fminf(scratch.dist[at], 3.4e38f) : 0;
    }
    double* scalars = scratch.scalars + (int64_t)blockIdx.y * 2 * in.k;
    scalars[c] = count;
    scalars[in.k + c] = energy;
}

/// Pieces in order onto the accumulators.
__global__ void combine_pieces_kernel(
        int k,
        int d,
        int pieces,
        bool diagonal,
        const DenseScratch scratch,
        const DeviceStatistics out) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t sums = (int64_t)k * d;
    if (i < sums) {
        double sum = out.sums[i];
        for (int p = 0; p < pieces; p++) {
            sum += scratch.partial[p * sums + i];
        }
        out.sums[i] = sum;
        if (diagonal) {
            double energy = out.energy[i];
            for (int p = pieces; p < 2 * pieces; p++) {
                energy += scratch.partial[p * sums + i];
            }
            out.energy[i] = energy;
        }
    }
    if (i < k) {
        double count = out.counts[i], energy = diagonal ? 0 : out.energy[i];
        for (int p = 0; p < pieces; p++) {
            count += scratch.scalars[(int64_t)p * 2 * k + i];
            energy += scratch.scalars[(int64_t)p * 2 * k + k + i];
        }
        out.counts[i] = count;
        if (!diagonal) {
            out.energy[i] = energy;
        }
    }
}

} // namespace

cudaError_t launch_dense_shares(
        const MixtureRowsInput& in,
        int64_t rows,
        const uint32_t* numbers,
        const MixtureRowsOutput& out,
        const DenseScratch& scratch,
        cudaStream_t stream) {
    const dim3 grid(blocks_for(in.k, tile), blocks_for(rows, tile));
    const auto distances = in.half_precisions ? dense_distances_kernel<true>
                                              : dense_distances_kernel<false>;
    distances<<<grid, threads, 0, stream>>>(in, rows, numbers, scratch.dist);
    dense_shares_kernel<<<rows, share_threads, 0, stream>>>(
            in, numbers, out, scratch.dist, scratch.shares);
    return cudaGetLastError();
}

cudaError_t launch_dense_sums(
        const MixtureRowsInput& in,
        int pieces,
        uint32_t first,
        const uint32_t* numbers,
        const DenseScratch& scratch,
        const DeviceStatistics& out,
        cudaStream_t stream) {
    const dim3 grid(blocks_for(in.k, tile), blocks_for(in.d, tile), pieces);
    dense_sums_kernel<false>
            <<<grid, threads, 0, stream>>>(in, first, numbers, scratch);
    if (in.half_precisions) {
        dense_sums_kernel<true>
                <<<grid, threads, 0, stream>>>(in, first, numbers, scratch);
    }
    const dim3 columns(blocks_for(in.k, 128), pieces);
    dense_scalars_kernel<<<columns, 128, 0, stream>>>(in, first, scratch);
    combine_pieces_kernel<<<
            blocks_for((int64_t)in.k * in.d, threads),
            threads,
            0,
            stream>>>(
            in.k, in.d, pieces, in.half_precisions != nullptr, scratch, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
