#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/row_lanes.cuh>
#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

constexpr int row_lanes = 8; ///< threads per row

/// Responsibilities of the entries of each row.
__global__ void __launch_bounds__(threads) share_rows_kernel(
        const MixtureRowsInput in,
        int64_t first,
        int64_t rows,
        int slices,
        int64_t count,
        const float* __restrict__ row_dropped,
        const uint64_t* __restrict__ places,
        const float* __restrict__ partial,
        const MixtureRowsOutput out,
        WeightedRow* __restrict__ entries,
        uint32_t* __restrict__ keys) {
    __shared__ float all_dropped[threads / 32];
    __shared__ uint32_t all_kept[threads / 32];
    const int64_t i =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / row_lanes;
    const int64_t row = first + i;
    const int part = threadIdx.x % row_lanes;
    const uint64_t base = places[first] & RowPlace::entries_mask;
    uint64_t at = 0, end = 0;
    if (i < rows) {
        at = (places[row] & RowPlace::entries_mask) - base;
        end = (places[row + 1] & RowPlace::entries_mask) - base;
    }
    // the thread's entries: part, part + row_lanes, …
    constexpr int most = list_capacity / row_lanes;
    uint32_t number[most];
    float dist[most];
    double value[most];
    double top = -INFINITY;
    uint32_t best = 0xffffffff;
    auto see = [&](double other, uint32_t component) {
        if (other > top || (other == top && component < best)) {
            top = other;
            best = component;
        }
    };
    const uint64_t mine = at + part;
#pragma unroll
    for (int j = 0; j < most; j++) {
        const uint64_t e = mine + j * row_lanes;
        if (e >= end) {
            break;
        }
        number[j] = keys[e];
        dist[j] = partial[e];
        for (int s = 1; s < slices; s++) {
            dist[j] += partial[s * count + e];
        }
        const ComponentTerms terms = in.components[number[j]];
        const double exact = isinf(dist[j])
                ? far_distance(in, row, number[j])
                : dist[j];
        value[j] = terms.log_scale - terms.precision * exact;
        see(value[j], number[j]);
    }
#pragma unroll
    for (int step = row_lanes / 2; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(0xffffffff, top, step);
        const uint32_t component = __shfl_xor_sync(0xffffffff, best, step);
        see(other, component);
    }
    float share[most];
    double sum = 0;
#pragma unroll
    for (int j = 0; j < most; j++) {
        if (mine + j * row_lanes >= end) {
            break;
        }
        share[j] = expf(float(value[j] - top));
        sum += share[j];
    }
    sum = row_sum<row_lanes>(sum);
    // one step of Newton's: a division would be a function call
    const double guess = __frcp_rn(float(sum));
    const double inverse = guess * (2 - sum * guess);
    const float weight = in.weights && at < end ? in.weights[row] : 1;
    const uint32_t block = uint32_t(i) / uint32_t(in.block_rows);
    const uint32_t blocks =
            uint32_t(rows + in.block_rows - 1) / uint32_t(in.block_rows);
    const int n = end - at;
    float dropped = 0;
    uint32_t kept = 0;
#pragma unroll
    for (int j = 0; j < most; j++) {
        const uint64_t e = mine + j * row_lanes;
        if (e >= end) {
            break;
        }
        float r = share[j] * inverse;
        if (r * n < in.most_drop) {
            dropped += r;
            r = 0;
        }
        kept += r > 0;
        entries[e] = {uint32_t(row), r * weight, fminf(dist[j], 3.4e38f), 0};
        // what was dropped is sorted to the end and not summed
        keys[e] = r > 0 ? number[j] + block * in.k : blocks * in.k;
    }
    dropped = row_sum<row_lanes>(dropped);
    if (at < end && part == 0) {
        dropped += row_dropped[row];
        out.set_row(row, top + logf(sum), best);
    }
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    kept = __reduce_add_sync(0xffffffff, kept);
    // not negative: their bits order like integers
    const int largest_here =
            __reduce_max_sync(0xffffffff, __float_as_int(dropped));
    if (lane == 0) {
        all_dropped[warp] = __int_as_float(largest_here);
        all_kept[warp] = kept;
    }
    __syncthreads(); // every warp's share is there
    if (threadIdx.x == 0) {
        unsigned long long all = 0;
        float most_dropped = 0;
        for (int w = 0; w < threads / 32; w++) {
            most_dropped = fmaxf(most_dropped, all_dropped[w]);
            all += all_kept[w];
        }
        out.totals->raise_dropped(most_dropped);
        atomicAdd(&out.totals->entries, all);
    }
}

constexpr int total_threads = 512;

/// One thread block per block of rows.
__global__ void block_totals_kernel(
        const MixtureRowsInput in,
        const double* log_density,
        double* partial) {
    __shared__ double sums[2][total_threads];
    const int64_t first = (int64_t)blockIdx.x * row_totals_rows;
    const int64_t end = min(first + row_totals_rows, in.n);
    double value = 0, weight = 0;
    for (int64_t i = first + threadIdx.x; i < end; i += total_threads) {
        const double w = in.weights ? in.weights[i] : 1;
        value += w * log_density[i];
        weight += w;
    }
    sums[0][threadIdx.x] = value;
    sums[1][threadIdx.x] = weight;
    __syncthreads(); // every thread's part is there
    for (int step = total_threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            sums[0][threadIdx.x] += sums[0][threadIdx.x + step];
            sums[1][threadIdx.x] += sums[1][threadIdx.x + step];
        }
        __syncthreads(); // this level is done
    }
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = sums[0][0];
        partial[2 * blockIdx.x + 1] = sums[1][0];
    }
}

/// One warp: the blocks in order.
__global__ void add_totals_kernel(
        int64_t blocks,
        const double* partial,
        RowTotals* totals) {
    double value = totals->log_likelihood, weight = totals->weight;
    for (int64_t b0 = 0; b0 < blocks; b0 += 32) {
        const int64_t b = b0 + threadIdx.x;
        double2 mine = make_double2(0, 0);
        if (b < blocks) {
            mine = reinterpret_cast<const double2*>(partial)[b];
        }
        // past the last block there are zeros
#pragma unroll 8
        for (int i = 0; i < 32; i++) {
            value += __shfl_sync(0xffffffff, mine.x, i);
            weight += __shfl_sync(0xffffffff, mine.y, i);
        }
    }
    if (threadIdx.x == 0) {
        totals->log_likelihood = value;
        totals->weight = weight;
    }
}

} // namespace

cudaError_t launch_settle_rows(
        const MixtureRowsInput& in,
        int64_t first,
        int64_t rows,
        const float* dropped,
        const uint64_t* places,
        const EntryArrays& arrays,
        int multiprocessors,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    if (arrays.count == 0) {
        return cudaSuccess;
    }
    const cudaError_t error =
            launch_distances(in, arrays, multiprocessors, stream);
    if (error != cudaSuccess) {
        return error;
    }
    share_rows_kernel<<<blocks_for(rows * row_lanes), threads, 0, stream>>>(
            in,
            first,
            rows,
            distance_slices(in.k, in.d),
            arrays.count,
            dropped,
            places,
            arrays.partial,
            out,
            arrays.entries,
            arrays.keys);
    return cudaGetLastError();
}

cudaError_t launch_row_totals(
        const MixtureRowsInput& in,
        const double* log_density,
        double* partial,
        RowTotals* totals,
        cudaStream_t stream) {
    const int64_t blocks = row_totals_blocks(in.n);
    block_totals_kernel<<<blocks, total_threads, 0, stream>>>(
            in, log_density, partial);
    add_totals_kernel<<<1, 32, 0, stream>>>(blocks, partial, totals);
    return cudaGetLastError();
}

} // namespace faiss_flash
