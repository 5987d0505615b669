#include <faiss_flash/cuda/policies/choose_rules.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / 32;

/// What a warp works on.
struct RowShared {
    uint32_t number[list_capacity];
    double value[list_capacity]; ///< −dist, or log p(x, k)
    RowCandidates candidates;
};

__device__ bool better(double a, uint32_t na, double b, uint32_t nb) {
    return a > b || (a == b && na < nb);
}

/// One warp a row.
template <bool aligned, RuleKind kind>
__global__ void __launch_bounds__(threads, aligned ? 5 : 4)
        choose_listed_kernel(
                const ChooseInput in,
                int64_t n,
                int64_t first,
                const uint32_t* __restrict__ numbers,
                int parts,
                const ListOutput lists,
                idx_t* __restrict__ to,
                uint32_t* __restrict__ left,
                uint32_t* __restrict__ n_left) {
    __shared__ RowShared all[warps];
    RowShared& shared = all[threadIdx.x / 32];
    const int64_t i = ((int64_t)blockIdx.x * threads + threadIdx.x) / 32;
    if (i >= n) {
        return;
    }
    const int lane = threadIdx.x % 32;
    const int64_t row = numbers ? numbers[i] : first + i;

    // parts of the list, one after the other
    const int part_size =
            lane < parts ? lists.counts[i * list_parts + lane] : 0;
    const bool overflow =
            __any_sync(0xffffffff, part_size == list_overflow);
    int end = part_size;
#pragma unroll
    for (int step = 1; step < list_parts; step *= 2) {
        const int before = __shfl_up_sync(0xffffffff, end, step);
        end += lane >= step ? before : 0;
    }
    const int count = __shfl_sync(0xffffffff, end, parts - 1);
    // for shares there may be no others that matter
    if (overflow || count < (in.components ? 1 : in.candidates)) {
        if (lane == 0) {
            left[atomicAdd(n_left, 1u)] = row;
        }
        return;
    }
    const int capacity = list_capacity / parts;
    for (int at = lane; at < list_capacity; at += 32) {
        const int part = at / capacity, within = at % capacity;
        const int size = __shfl_sync(0xffffffff, part_size, part);
        const int begin = __shfl_sync(0xffffffff, end, part) - size;
        if (within < size) {
            shared.number[begin + within] =
                    lists.listed[i * list_capacity + at].component;
        }
    }
    __syncwarp(); // numbers are there

    const float* x = in.x + row * in.d;
    const int group = lane / distance_lanes;
    constexpr int groups = 32 / distance_lanes;
    // distances of a group's lanes at once; 2 cost registers: 0.70 ms, not
    // 0.63, for what 10M × 96 leaves open, 5 % less for AIR
    constexpr int each = 1;
    for (int at0 = 0; at0 < count; at0 += each * groups) {
        const float* centroids[each];
        double dist[each];
#pragma unroll
        for (int e = 0; e < each; e++) {
            const int at = min(at0 + e * groups + group, count - 1);
            centroids[e] = in.means + (int64_t)shared.number[at] * in.d;
        }
        distances<aligned>(in.d, x, centroids, dist);
#pragma unroll
        for (int e = 0; e < each; e++) {
            const int at = at0 + e * groups + group;
            if (at < count && lane % distance_lanes == 0) {
                double value = -dist[e];
                if (in.components) {
                    const ComponentTerms terms =
                            in.components[shared.number[at]];
                    value = terms.log_scale - terms.precision * dist[e];
                }
                // where it is NaN, too
                shared.value[at] = fmax(value, -(double)INFINITY);
            }
        }
    }
    __syncwarp(); // values are there

    // each lane ranks two of them
    double top = -INFINITY;
    for (int at = lane; at < count; at += 32) {
        const double value = shared.value[at];
        const uint32_t number = shared.number[at];
        int rank = 0;
        for (int other = 0; other < count; other++) {
            rank += better(
                    shared.value[other], shared.number[other], value, number);
        }
        if (rank < in.candidates) {
            shared.candidates.number[rank] = number;
            shared.candidates.value[rank] = value;
        }
        top = fmax(top, value);
    }
    double log_total = 0;
    if (in.components) {
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            top = fmax(top, __shfl_xor_sync(0xffffffff, top, step));
        }
        float sum = 0;
        for (int at = lane; at < count; at += 32) {
            sum += expf(float(shared.value[at] - top));
        }
        log_total = top + logf(warp_sum(sum));
    }
    if (lane == 0) {
        shared.candidates.count = min(count, in.candidates);
    }
    __syncwarp(); // candidates are in order
    RowChooser<aligned, kind>(in, shared.candidates)
            .choose(log_total, to + row * in.limit);
}

__global__ void only_lists_kernel(
        int64_t n,
        int limit,
        const uint32_t* labels,
        idx_t* to) {
    const int64_t i = (int64_t)blockIdx.x * threads + threadIdx.x;
    if (i < n * limit) {
        to[i] = i % limit == 0 ? (idx_t)labels[i / limit] : -1;
    }
}

} // namespace

cudaError_t launch_choose_listed(
        const ChooseInput& in,
        int64_t n,
        int64_t first,
        const uint32_t* numbers,
        int parts,
        const ListOutput& lists,
        idx_t* to,
        uint32_t* left,
        uint32_t* n_left,
        cudaStream_t stream) {
    with_rule(in, [&](auto aligned, auto kind) {
        choose_listed_kernel<aligned, kind>
                <<<(n * 32 + threads - 1) / threads, threads, 0, stream>>>(
                        in,
                        n,
                        first,
                        numbers,
                        parts,
                        lists,
                        to,
                        left,
                        n_left);
    });
    return cudaGetLastError();
}

cudaError_t launch_only_lists(
        int64_t n,
        int limit,
        const uint32_t* labels,
        idx_t* to,
        cudaStream_t stream) {
    only_lists_kernel<<<
            (n * limit + threads - 1) / threads,
            threads,
            0,
            stream>>>(n, limit, labels, to);
    return cudaGetLastError();
}

} // namespace faiss_flash
