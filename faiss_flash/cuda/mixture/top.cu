#include <faiss_flash/cuda/mixture/top.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// What a lane has of a row: places `lane` and `lane + 32`.
struct Candidate {
    double value; ///< larger is better
    uint32_t number;
};

__device__ bool better(const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.number < b.number);
}

/// rank[h]: how many of the row's n candidates are better than mine[h].
__device__ void rank_candidates(
        int n,
        const Candidate (&mine)[2],
        int (&rank)[2]) {
    rank[0] = rank[1] = 0;
    for (int i = 0; i < n; i++) {
        const bool upper = i >= 32;
        Candidate other;
        other.value = __shfl_sync(
                0xffffffff, upper ? mine[1].value : mine[0].value, i % 32);
        other.number = __shfl_sync(
                0xffffffff, upper ? mine[1].number : mine[0].number, i % 32);
        rank[0] += better(other, mine[0]);
        rank[1] += better(other, mine[1]);
    }
}

constexpr int threads = 256;

/// The entries of a warp's row, and where its answer goes.
struct RowAnswer {
    int64_t row;
    uint64_t first; ///< entry
    int count;      ///< of entries
    int64_t* labels; ///< (m)
    float* values;   ///< (m)

    /// False if there is nothing to do: no such row, or fewer entries than
    /// `least`, which is not answered.
    __device__ bool find(
            int64_t n,
            int m,
            int least,
            const uint64_t* places,
            int64_t* all_labels,
            float* all_values) {
        row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
        if (row >= n) {
            return false;
        }
        labels = all_labels + row * m;
        values = all_values + row * m;
        first = places[row] & RowPlace::entries_mask;
        count = (places[row + 1] & RowPlace::entries_mask) - first;
        if (count < least) {
            for (int j = threadIdx.x % 32; j < m; j += 32) {
                labels[j] = not_answered;
            }
            return false;
        }
        return true;
    }
};

/// One warp a row: its entries by weight.
__global__ void __launch_bounds__(threads) top_entries_kernel(
        int64_t n,
        int m,
        const uint64_t* places,
        const WeightedRow* entries,
        const uint32_t* components,
        int64_t* labels,
        float* values) {
    RowAnswer answer;
    if (!answer.find(n, m, 1, places, labels, values)) {
        return;
    }
    const int lane = threadIdx.x % 32;
    Candidate mine[2];
    float weight[2];
    int rank[2], kept = 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = lane + 32 * half;
        mine[half] = {0, 0xffffffff};
        if (i < answer.count) {
            mine[half] = {
                    entries[answer.first + i].weight,
                    components[answer.first + i]};
        }
        weight[half] = mine[half].value;
        kept += __popc(__ballot_sync(0xffffffff, weight[half] > 0));
    }
    rank_candidates(answer.count, mine, rank);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (weight[half] > 0 && rank[half] < m) {
            answer.labels[rank[half]] = mine[half].number;
            answer.values[rank[half]] = weight[half];
        }
    }
    for (int j = kept + lane; j < m; j += 32) {
        answer.labels[j] = -1;
        answer.values[j] = 0;
    }
}

/// One warp a row: its listed centroids by distance or product, in double
/// precision.
__global__ void __launch_bounds__(threads) top_listed_kernel(
        int64_t n,
        int m,
        int d,
        bool l2,
        const float* x,
        const float* means,
        const uint64_t* places,
        const uint32_t* components,
        int64_t* labels,
        float* values) {
    // closer than the m-th to be sure: a list that is too short is no list
    RowAnswer answer;
    if (!answer.find(n, m, m, places, labels, values)) {
        return;
    }
    const int lane = threadIdx.x % 32;
    x += answer.row * d;
    Candidate mine[2] = {
            {-INFINITY, 0xffffffff}, {-INFINITY, 0xffffffff}};
    for (int at = 0; at < answer.count; at++) {
        const uint32_t number = components[answer.first + at];
        const float* c = means + (int64_t)number * d;
        double sum = 0;
        for (int j = lane; j < d; j += 32) {
            const double a = x[j], b = c[j];
            sum += l2 ? (a - b) * (b - a) : a * b;
        }
        sum = warp_sum(sum);
        if (at % 32 == lane) {
            mine[0] = at < 32 ? Candidate{sum, number} : mine[0];
            mine[1] = at >= 32 ? Candidate{sum, number} : mine[1];
        }
    }
    int rank[2];
    rank_candidates(answer.count, mine, rank);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (lane + 32 * half < answer.count && rank[half] < m) {
            answer.labels[rank[half]] = mine[half].number;
            answer.values[rank[half]] =
                    l2 ? -mine[half].value : mine[half].value;
        }
    }
}

unsigned blocks_for_rows(int64_t rows) {
    return (rows * 32 + threads - 1) / threads;
}

} // namespace

cudaError_t launch_top_entries(
        int64_t n,
        int m,
        const uint64_t* places,
        const WeightedRow* entries,
        const uint32_t* components,
        int64_t* labels,
        float* values,
        cudaStream_t stream) {
    top_entries_kernel<<<blocks_for_rows(n), threads, 0, stream>>>(
            n, m, places, entries, components, labels, values);
    return cudaGetLastError();
}

cudaError_t launch_top_listed(
        int64_t n,
        int m,
        int d,
        bool l2,
        const float* x,
        const float* means,
        const uint64_t* places,
        const uint32_t* components,
        int64_t* labels,
        float* values,
        cudaStream_t stream) {
    top_listed_kernel<<<blocks_for_rows(n), threads, 0, stream>>>(
            n, m, d, l2, x, means, places, components, labels, values);
    return cudaGetLastError();
}

} // namespace faiss_flash
