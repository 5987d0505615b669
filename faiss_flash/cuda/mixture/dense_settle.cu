// Dense rows of matrix products: the components that were left out of those,
// in difference form; and the sums of all.

#include <faiss_flash/cuda/mixture/block.cuh>
#include <faiss_flash/cuda/mixture/dense_products.cuh>
#include <faiss_flash/cuda/mixture/pairs.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

/// Eight threads a row; chunks: see PairRow.
template <bool aligned, int chunks, bool diagonal>
__global__ void __launch_bounds__(threads) settle_dense_kernel(
        const MixtureRowsInput in,
        int64_t rows,
        int excluded,
        const DensePiece* pieces,
        const DenseProducts products,
        float* __restrict__ dist,
        float* __restrict__ shares,
        const MixtureRowsOutput out) {
    const int64_t at =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / pair_lanes;
    const int64_t i = min(at, rows - 1);
    const int lane = threadIdx.x % pair_lanes;
    const DensePiece piece = pieces[i / products.piece_rows];
    const uint32_t within = i % products.piece_rows;
    const bool real = at < rows && within < piece.count;
    const int64_t row = real ? products.numbers[piece.first + within] : 0;
    const DenseFound found = products.found[i];
    Top top = {found.top, found.best};
    if (found.sum == 0) {
        top = {-INFINITY, 0x7fffffff}; // there are excluded ones only
    }
    PairRow<aligned, chunks, diagonal> x;
    x.load(in.x + row * in.d);
    for (int e0 = 0; e0 < excluded; e0 += pair_lanes) { // whole warps
        float mine = 0; // of component e0 + lane
        for (int e = e0; e < min(e0 + pair_lanes, excluded); e++) {
            const float of = distance_of(x, in, products.excluded[e]);
            mine = lane == e - e0 ? of : mine;
        }
        if (e0 + lane < excluded && at < rows) {
            const uint32_t c = products.excluded[e0 + lane];
            top.see(log_density_of(in, row, c, mine), c);
            dist[(e0 + lane) * rows + at] = mine;
        }
    }
#pragma unroll
    for (int step = pair_lanes / 2; step > 0; step /= 2) {
        const double value = __shfl_xor_sync(0xffffffff, top.value, step);
        const int number = __shfl_xor_sync(0xffffffff, top.component, step);
        top.see(value, number);
    }
    double mine = 0;
    for (int e = lane; e < excluded && real; e += pair_lanes) {
        const float of = dist[e * rows + at];
        const uint32_t c = products.excluded[e];
        mine += expf(float(log_density_of(in, row, c, of) - top.value));
    }
#pragma unroll
    for (int step = pair_lanes / 2; step > 0; step /= 2) {
        mine += __shfl_xor_sync(0xffffffff, mine, step);
    }
    if (found.sum > 0) {
        mine += found.sum * exp(found.top - top.value);
    }
    const double log_density = top.value + log(mine);
    uint32_t kept = 0;
    for (int e = lane; e < excluded && at < rows; e += pair_lanes) {
        float share = 0;
        if (real) {
            const float of = dist[e * rows + at];
            const uint32_t c = products.excluded[e];
            share = expf(float(log_density_of(in, row, c, of) - log_density));
        }
        if (!(share >= dense_least_share)) {
            share = 0;
        }
        kept += share > 0;
        shares[e * rows + at] = share;
    }
    if (excluded > 0) {
        kept = __reduce_add_sync(0xffffffff, kept);
        if (threadIdx.x % 32 == 0 && kept > 0) {
            atomicAdd(&out.totals->entries, (unsigned long long)kept);
        }
    }
    if (lane != 0 || at >= rows) {
        return;
    }
    products.log_density[at] = real ? float(log_density) : INFINITY;
    if (real) {
        const uint32_t best = min(top.component, in.k - 1);
        out.set_row(row, log_density, best);
        if (at == 0) {
            out.totals->raise_dropped(in.k * dense_least_share);
        }
    }
}

constexpr int sums_threads = 128;

/// One thread block a piece, an excluded component and 128 columns, 512 rows
/// at once. Shares of components that are collapsed are zero for most rows.
template <bool diagonal>
__global__ void __launch_bounds__(sums_threads) excluded_sums_kernel(
        const MixtureRowsInput in,
        int64_t rows,
        const DenseProducts products,
        const DenseScratch scratch) {
    constexpr int per_thread = 4, at_once = sums_threads * per_thread;
    __shared__ float share_of[at_once];
    __shared__ uint32_t row_of[at_once];
    __shared__ int before[sums_threads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int e = blockIdx.x, p = blockIdx.z;
    const int c = products.excluded[e];
    const int j = blockIdx.y * sums_threads + threadIdx.x;
    const float offset = j < in.d ? products.shift.offset[j] : 0;
    const float mean =
            diagonal && j < in.d ? in.means[(int64_t)c * in.d + j] : 0;
    const DensePiece piece = scratch.pieces[p];
    const int64_t first = e * rows + p * products.piece_rows;
    double sum = 0, squares = 0, count = 0, energy = 0;
    for (uint32_t i0 = 0; i0 < piece.count; i0 += at_once) {
        const uint32_t i = i0 + threadIdx.x * per_thread;
        float4 of = make_float4(0, 0, 0, 0); // and so beyond piece.count
        if (i < piece.count) {
            of = *reinterpret_cast<const float4*>(scratch.shares + first + i);
        }
        const float shares[per_thread] = {of.x, of.y, of.z, of.w};
        int end = (of.x > 0) + (of.y > 0) + (of.z > 0) + (of.w > 0);
        const int mine = end;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(0xffffffff, end, step);
            end += lane >= step ? other : 0;
        }
        if (lane == 31) {
            before[warp] = end;
        }
        __syncthreads(); // counts of warps are there; the list has been read
        int at = end - mine, all = 0;
        for (int w = 0; w < sums_threads / 32; w++) {
            at += w < warp ? before[w] : 0;
            all += before[w];
        }
#pragma unroll
        for (int r = 0; r < per_thread; r++) {
            if (shares[r] > 0) {
                share_of[at] = shares[r];
                row_of[at++] = products.numbers[piece.first + i + r];
                count += shares[r];
                energy += shares[r] * scratch.dist[first + i + r];
            }
        }
        __syncthreads(); // the list is there, and counts have been read
        float part = 0, part_squares = 0;
        for (int r = 0; r < all && j < in.d; r++) {
            const float value = in.x[(int64_t)row_of[r] * in.d + j];
            part = fmaf(share_of[r], value - offset, part);
            if constexpr (diagonal) {
                const float step = value - mean;
                part_squares = fmaf(share_of[r], step * step, part_squares);
            }
            if (r % 128 == 127) {
                sum += part;
                squares += part_squares;
                part = part_squares = 0;
            }
        }
        sum += part;
        squares += part_squares;
    }
    if (j < in.d) {
        const int64_t of = (int64_t)p * in.k + c;
        if constexpr (diagonal) {
            scratch.partial[2 * of * in.d + j] = sum * products.scales[j];
            scratch.partial[(2 * of + 1) * in.d + j] = squares;
        } else {
            scratch.partial[of * in.d + j] = sum * products.shift.scale;
        }
    }
    if (blockIdx.y == 0) {
        count = block_sum<sums_threads>(count);
        energy = block_sum<sums_threads>(energy);
        if (threadIdx.x == 0) {
            double* scalars = scratch.scalars + (int64_t)p * 2 * in.k;
            scalars[c] = count;
            scalars[in.k + c] = energy;
        }
    }
}

__global__ void combine_products_kernel(
        const MixtureRowsInput in,
        int pieces,
        const DenseProducts products,
        const DenseScratch scratch,
        const DeviceStatistics out) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t sums = (int64_t)in.k * in.d;
    if (i < sums) {
        const int c = i / in.d;
        const double unit = 1 / (double)products.shift.scale;
        const double offset = products.shift.offset[i % in.d];
        double sum = out.sums[i];
        for (int p = 0; p < pieces; p++) {
            sum += scratch.partial[p * sums + i] * unit +
                    offset * scratch.scalars[(int64_t)p * 2 * in.k + c];
        }
        out.sums[i] = sum;
    }
    if (i < in.k) {
        double count = out.counts[i], energy = out.energy[i];
        for (int p = 0; p < pieces; p++) {
            const double* scalars = scratch.scalars + (int64_t)p * 2 * in.k;
            count += scalars[i];
            energy += scalars[in.k + i];
        }
        out.counts[i] = count;
        out.energy[i] = energy;
    }
}

/// Squares around the means from those around the offset; excluded components
/// have them already.
__global__ void combine_diagonal_kernel(
        const MixtureRowsInput in,
        int pieces,
        const DenseProducts products,
        const DenseScratch scratch,
        const DeviceStatistics out) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t sums = (int64_t)in.k * in.d;
    if (i < sums) {
        const int c = i / in.d, j = i % in.d;
        const bool excluded = products.columns[c].y == 0;
        const double s = products.scales[j], t = products.scales[in.d + j];
        const double offset = products.shift.offset[j];
        const double mean = in.means[i] - offset;
        double sum = out.sums[i], squares = out.energy[i];
        for (int p = 0; p < pieces; p++) {
            const int64_t of = (int64_t)p * in.k + c;
            const double count = scratch.scalars[(int64_t)p * 2 * in.k + c];
            const double linear = scratch.partial[2 * of * in.d + j] / s;
            const double square = scratch.partial[(2 * of + 1) * in.d + j];
            sum += linear + offset * count;
            squares += excluded
                    ? square
                    : fmax(square / (t * t) +
                                   mean * (mean * count - 2 * linear),
                           0.0);
        }
        out.sums[i] = sum;
        out.energy[i] = squares;
    }
    if (i < in.k) {
        double count = out.counts[i];
        for (int p = 0; p < pieces; p++) {
            count += scratch.scalars[(int64_t)p * 2 * in.k + i];
        }
        out.counts[i] = count;
    }
}

template <bool diagonal>
auto settle_kernel(int d, bool aligned) {
    return !aligned    ? settle_dense_kernel<false, 0, diagonal>
            : d == 128 ? settle_dense_kernel<true, 4, diagonal>
            : d == 96  ? settle_dense_kernel<true, 3, diagonal>
                       : settle_dense_kernel<true, 0, diagonal>;
}

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

} // namespace

cudaError_t launch_settle_dense(
        const MixtureRowsInput& in,
        int64_t rows,
        int excluded,
        const DensePiece* pieces,
        const DenseProducts& products,
        float* dist,
        float* shares,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    const bool aligned = in.aligned();
    const auto kernel = in.half_precisions
            ? settle_kernel<true>(in.d, aligned)
            : settle_kernel<false>(in.d, aligned);
    kernel<<<blocks_for(rows * pair_lanes), threads, 0, stream>>>(
            in, rows, excluded, pieces, products, dist, shares, out);
    return cudaGetLastError();
}

cudaError_t launch_dense_excluded_sums(
        const MixtureRowsInput& in,
        int pieces,
        int excluded,
        const DenseProducts& products,
        const DenseScratch& scratch,
        cudaStream_t stream) {
    const dim3 grid(
            excluded, (in.d + sums_threads - 1) / sums_threads, pieces);
    const auto kernel = in.half_precisions ? excluded_sums_kernel<true>
                                           : excluded_sums_kernel<false>;
    kernel<<<grid, sums_threads, 0, stream>>>(
            in, pieces * products.piece_rows, products, scratch);
    return cudaGetLastError();
}

cudaError_t launch_combine_products(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const DeviceStatistics& out,
        cudaStream_t stream) {
    const auto kernel = in.half_precisions ? combine_diagonal_kernel
                                           : combine_products_kernel;
    kernel<<<blocks_for((int64_t)in.k * in.d), threads, 0, stream>>>(
            in, pieces, products, scratch, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
