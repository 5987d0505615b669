#include <faiss_flash/cuda/policies/choose_rules.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / 32;
constexpr int warp_columns = 32; ///< that a warp takes at once
constexpr int warp_rows = 4;

/// −dist, or log p(x, k), of every centroid; one warp for 32 of them and a
/// few rows, so that a centroid is read once for all of these.
template <bool aligned>
__global__ void __launch_bounds__(threads, 2) all_values_kernel(
        const ChooseInput in,
        int64_t count,
        const uint32_t* __restrict__ numbers,
        double* __restrict__ values) {
    const int64_t pieces = (in.k + warp_columns - 1) / warp_columns;
    const int64_t item = ((int64_t)blockIdx.x * threads + threadIdx.x) / 32;
    const int64_t i = item / pieces * warp_rows;
    if (i >= count) {
        return;
    }
    const float* x[warp_rows];
#pragma unroll
    for (int r = 0; r < warp_rows; r++) {
        x[r] = in.x + (int64_t)numbers[min(i + r, count - 1)] * in.d;
    }
    const int first = item % pieces * warp_columns;
    const int group = threadIdx.x % 32 / distance_lanes;
    constexpr int groups = 32 / distance_lanes;
    for (int step = 0; step < warp_columns; step += groups) {
        const int c = first + step + group;
        const int64_t at = min(c, in.k - 1);
        double dist[warp_rows];
        if (in.half_precisions) {
#pragma unroll
            for (int r = 0; r < warp_rows; r++) {
                dist[r] = weighted_distance<aligned>(
                        in.d,
                        x[r],
                        in.means + at * in.d,
                        in.half_precisions + at * in.d);
            }
        } else {
            distances<aligned>(in.d, in.means + at * in.d, x, dist);
        }
#pragma unroll
        for (int r = 0; r < warp_rows; r++) {
            if (c < in.k && i + r < count &&
                threadIdx.x % distance_lanes == 0) {
                double value = -dist[r];
                if (in.components) {
                    const ComponentTerms terms = in.components[c];
                    value = terms.log_scale - terms.precision * dist[r];
                }
                // where it is NaN, too
                values[(i + r) * in.k + c] = fmax(value, -(double)INFINITY);
            }
        }
    }
}

/// One warp for 32 centroids beside one.
template <bool aligned>
__global__ void __launch_bounds__(threads) between_kernel(
        const ChooseInput in,
        float* __restrict__ between) {
    const int64_t pieces = (in.k + warp_columns - 1) / warp_columns;
    const int64_t item = ((int64_t)blockIdx.x * threads + threadIdx.x) / 32;
    const int64_t row = item / pieces;
    if (row >= in.k) {
        return;
    }
    const int first = item % pieces * warp_columns;
    const int group = threadIdx.x % 32 / distance_lanes;
    constexpr int groups = 32 / distance_lanes;
    for (int step = 0; step < warp_columns; step += groups) {
        const int c = first + step + group;
        const int64_t at = min(c, in.k - 1);
        const double dist = distance<aligned>(
                in.d, in.means + row * in.d, in.means + at * in.d);
        if (c < in.k && threadIdx.x % distance_lanes == 0) {
            between[row * in.k + c] = dist;
        }
    }
}

/// A value and its place; the larger value wins, then the lower number.
struct Candidate {
    double value;
    uint32_t number;

    __device__ bool better(const Candidate& other) const {
        return value > other.value ||
                (value == other.value && number < other.number);
    }
    __device__ void see(const Candidate& other) {
        if (other.better(*this)) {
            *this = other;
        }
    }
    __device__ Candidate of_lane(int step) const {
        return {__shfl_xor_sync(0xffffffff, value, step),
                __shfl_xor_sync(0xffffffff, number, step)};
    }
};

/// The best of a block's; every thread gets it.
__device__ Candidate block_best(Candidate mine) {
    __shared__ Candidate all[warps];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        mine.see(mine.of_lane(step));
    }
    __syncthreads(); // nobody reads the last answer any more
    if (threadIdx.x % 32 == 0) {
        all[threadIdx.x / 32] = mine;
    }
    __syncthreads(); // every warp's best is there
    mine = all[0];
#pragma unroll
    for (int w = 1; w < warps; w++) {
        mine.see(all[w]);
    }
    return mine;
}

/// Σ exp(value − top) over a row, in a fixed order.
__device__ double block_mass(const double* values, int k, double top) {
    __shared__ double all[threads];
    double sum = 0;
    for (int c = threadIdx.x; c < k; c += threads) {
        sum += expf(float(values[c] - top));
    }
    all[threadIdx.x] = sum;
    __syncthreads(); // every thread's part is there
    for (int step = threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            all[threadIdx.x] += all[threadIdx.x + step];
        }
        __syncthreads(); // this level is done
    }
    return all[0];
}

/// One block a row.
template <bool aligned, RuleKind kind>
__global__ void __launch_bounds__(threads, 5) choose_of_all_kernel(
        const ChooseInput in,
        const uint32_t* __restrict__ numbers,
        const double* __restrict__ values,
        idx_t* __restrict__ to) {
    __shared__ RowCandidates candidates;
    const int64_t row = numbers[blockIdx.x];
    values += (int64_t)blockIdx.x * in.k;
    Candidate last = {INFINITY, 0};
    double top = 0;
    for (int rank = 0; rank < in.candidates; rank++) {
        // the best of those behind the last one
        Candidate mine = {-INFINITY, 0xffffffff};
        for (int c = threadIdx.x; c < in.k; c += threads) {
            const Candidate other = {values[c], (uint32_t)c};
            if (rank == 0 || last.better(other)) {
                mine.see(other);
            }
        }
        last = block_best(mine);
        top = rank == 0 ? last.value : top;
        if (threadIdx.x == 0) {
            candidates.number[rank] = min(last.number, in.k - 1);
            candidates.value[rank] = last.value;
            candidates.count = in.candidates;
        }
    }
    const double log_total =
            in.components ? top + logf(block_mass(values, in.k, top)) : 0;
    __syncthreads(); // the candidates are there
    if (threadIdx.x < 32) {
        RowChooser<aligned, kind>(in, candidates)
                .choose(log_total, to + row * in.limit);
    }
}

} // namespace

cudaError_t launch_between(
        const ChooseInput& in,
        float* between,
        cudaStream_t stream) {
    const int64_t pieces = (in.k + warp_columns - 1) / warp_columns;
    const auto kernel =
            in.aligned() ? between_kernel<true> : between_kernel<false>;
    kernel<<<(in.k * pieces + warps - 1) / warps, threads, 0, stream>>>(
            in, between);
    return cudaGetLastError();
}

cudaError_t launch_choose_of_all(
        const ChooseInput& in,
        int64_t count,
        const uint32_t* numbers,
        double* values,
        idx_t* to,
        cudaStream_t stream) {
    const int64_t pieces = (in.k + warp_columns - 1) / warp_columns;
    with_rule(in, [&](auto aligned, auto kind) {
        const int64_t items = (count + warp_rows - 1) / warp_rows * pieces;
        all_values_kernel<aligned>
                <<<(items + warps - 1) / warps, threads, 0, stream>>>(
                        in, count, numbers, values);
        choose_of_all_kernel<aligned, kind>
                <<<count, threads, 0, stream>>>(in, numbers, values, to);
    });
    return cudaGetLastError();
}

} // namespace faiss_flash
