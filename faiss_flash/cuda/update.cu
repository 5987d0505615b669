#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <faiss_flash/cuda/update.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// Per-run sums that are not vectors.
struct RunScalars {
    float count, energy, product;
};

/// Arrays in the scratch buffer, each on a 256-byte boundary.
struct Layout {
    uint32_t *keys, *sorted_keys, *rows, *sorted_rows;
    uint32_t* starts;     ///< (segments + 1) first sorted row
    uint32_t* run_counts; ///< (segments + 1)
    uint32_t* run_starts; ///< (segments + 1)
    float* partial;       ///< (runs, d)
    RunScalars* scalars;  ///< (runs)
    void* temp;
    size_t temp_bytes;
    size_t bytes;
};

int key_bits(const UpdatePlan& plan) {
    int bits = 1;
    while (bits < 32 && (int64_t(1) << bits) < plan.segments()) {
        bits++;
    }
    return bits;
}

Layout lay_out(const UpdatePlan& plan, void* base) {
    Layout l = {};
    uint8_t* at = static_cast<uint8_t*>(base);
    size_t used = 0;
    auto take = [&](auto*& p, int64_t count) {
        using T = std::remove_reference_t<decltype(*p)>;
        p = reinterpret_cast<T*>(at + used);
        used += (count * sizeof(T) + 255) / 256 * 256;
    };
    take(l.keys, plan.n);
    take(l.sorted_keys, plan.n);
    take(l.rows, plan.n);
    take(l.sorted_rows, plan.n);
    take(l.starts, plan.segments() + 1);
    take(l.run_counts, plan.segments() + 1);
    take(l.run_starts, plan.segments() + 1);
    take(l.partial, plan.runs() * plan.d);
    take(l.scalars, plan.runs());
    size_t sort_bytes = 0, scan_bytes = 0;
    cub::DeviceRadixSort::SortPairs(
            nullptr,
            sort_bytes,
            l.keys,
            l.sorted_keys,
            l.rows,
            l.sorted_rows,
            plan.n,
            0,
            key_bits(plan));
    cub::DeviceScan::ExclusiveSum(
            nullptr,
            scan_bytes,
            l.run_counts,
            l.run_starts,
            plan.segments() + 1);
    l.temp_bytes = std::max(sort_bytes, scan_bytes);
    l.temp = at + used;
    l.bytes = used + l.temp_bytes;
    return l;
}

__global__ void make_keys_kernel(
        UpdatePlan plan,
        const uint32_t* labels,
        uint32_t* keys,
        uint32_t* rows) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < plan.n) {
        keys[i] = i / plan.block_rows * plan.k + labels[i];
        rows[i] = i;
    }
}

/// starts[s] = first sorted row whose key is at least s.
__global__ void find_starts_kernel(
        int64_t n,
        int64_t segments,
        const uint32_t* sorted_keys,
        uint32_t* starts) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i > n) {
        return;
    }
    const int64_t from = i == 0 ? 0 : (int64_t)sorted_keys[i - 1] + 1;
    const int64_t to = i == n ? segments : (int64_t)sorted_keys[i];
    for (int64_t s = from; s <= to; s++) {
        starts[s] = i;
    }
}

__global__ void count_runs_kernel(
        int64_t segments,
        const uint32_t* starts,
        uint32_t* run_counts) {
    const int64_t s = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (s <= segments) {
        run_counts[s] = s == segments
                ? 0
                : (starts[s + 1] - starts[s] + run_rows - 1) / run_rows;
    }
}

/// The segment that run `run` belongs to: last s with run_starts[s] ≤ run.
__device__ int64_t
segment_of_run(const uint32_t* run_starts, int64_t segments, uint32_t run) {
    int64_t low = 0, high = segments;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (run_starts[middle] <= run) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

constexpr int slice = 128; // columns a warp sums at once, 4 per lane

/// The four columns of lane `lane` in the slice at `column0`: consecutive
/// ones where rows are 16-byte aligned (d a multiple of 4), 32 apart
/// otherwise.
template <bool aligned>
struct LaneColumns {
    int first, count; ///< count: columns of the lane that exist

    __device__ LaneColumns(int column0, int lane, int d) {
        first = column0 + (aligned ? 4 * lane : lane);
        count = aligned ? (first < d ? 4 : 0)
                        : min(max((d - first + 31) / 32, 0), 4);
    }
    __device__ int column(int e) const {
        return first + (aligned ? e : 32 * e);
    }
    __device__ void load(const float* row, float (&value)[4]) const {
        if constexpr (aligned) {
            float4 v = make_float4(0, 0, 0, 0);
            if (count > 0) {
                v = __ldg(reinterpret_cast<const float4*>(row + first));
            }
            value[0] = v.x, value[1] = v.y, value[2] = v.z, value[3] = v.w;
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                value[e] = e < count ? __ldg(row + column(e)) : 0;
            }
        }
    }
};

/// One warp per run; a slice of columns after the other.
template <bool aligned>
__global__ void sum_runs_kernel(
        UpdatePlan plan,
        const float* __restrict__ x,
        const float* __restrict__ weights,
        const float* __restrict__ means,
        bool l2,
        const uint32_t* __restrict__ sorted_rows,
        const uint32_t* __restrict__ starts,
        const uint32_t* __restrict__ run_starts,
        float* __restrict__ partial,
        RunScalars* __restrict__ scalars) {
    const int lane = threadIdx.x % 32;
    const int64_t run = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (run >= run_starts[plan.segments()]) {
        return;
    }
    const int64_t segment = segment_of_run(run_starts, plan.segments(), run);
    const int64_t within = run - run_starts[segment];
    const int64_t first = starts[segment] + within * run_rows;
    const int rows =
            min((int64_t)run_rows, (int64_t)starts[segment + 1] - first);
    const int d = plan.d;
    const float* mean = means + segment % plan.k * d;

    float energy = 0, product = 0, count = 0;
    for (int column0 = 0; column0 < d; column0 += slice) {
        const LaneColumns<aligned> columns(column0, lane, d);
        float c[4], sum[4] = {};
        columns.load(mean, c);
        for (int i0 = 0; i0 < rows; i0 += 32) {
            // the next 32 row numbers, one per lane
            const uint32_t mine =
                    i0 + lane < rows ? sorted_rows[first + i0 + lane] : 0;
            const float my_weight =
                    weights && i0 + lane < rows ? weights[mine] : 1;
            const int block = min(32, rows - i0);
#pragma unroll 8
            for (int i = 0; i < block; i++) {
                const int64_t row = __shfl_sync(0xffffffff, mine, i);
                const float w = __shfl_sync(0xffffffff, my_weight, i);
                float value[4];
                columns.load(x + row * d, value);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float step = value[e] - c[e];
                    sum[e] = fmaf(w, value[e], sum[e]);
                    energy = fmaf(w * step, step, energy);
                    product += l2 ? step * step : value[e] * c[e];
                }
                count += column0 == 0 ? w : 0;
            }
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (e < columns.count) {
                partial[run * d + columns.column(e)] = sum[e];
            }
        }
    }
    energy = warp_sum(energy);
    product = warp_sum(product);
    if (lane == 0) {
        scalars[run] = {count, energy, product};
    }
}

/// Runs of each centroid, in order, onto the accumulators.
__global__ void combine_runs_kernel(
        UpdatePlan plan,
        const uint32_t* __restrict__ starts,
        const uint32_t* __restrict__ run_starts,
        const float* __restrict__ partial,
        const RunScalars* __restrict__ scalars,
        DeviceStatistics out) {
    const int c = blockIdx.x;
    const int64_t blocks = plan.blocks();
    for (int j = threadIdx.x; j < plan.d; j += blockDim.x) {
        double sum = out.sums[(int64_t)c * plan.d + j];
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t s = b * plan.k + c;
            for (uint32_t r = run_starts[s]; r < run_starts[s + 1]; r++) {
                sum += partial[(int64_t)r * plan.d + j];
            }
        }
        out.sums[(int64_t)c * plan.d + j] = sum;
    }
    if (threadIdx.x == 0) {
        double count = out.counts[c], energy = out.energy[c];
        double product = out.products[c];
        int64_t members = out.members[c];
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t s = b * plan.k + c;
            for (uint32_t r = run_starts[s]; r < run_starts[s + 1]; r++) {
                count += scalars[r].count;
                energy += scalars[r].energy;
                product += scalars[r].product;
            }
            members += starts[s + 1] - starts[s];
        }
        out.counts[c] = count;
        out.energy[c] = energy;
        out.products[c] = product;
        out.members[c] = members;
    }
}

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

} // namespace

size_t UpdatePlan::scratch_bytes() const {
    return lay_out(*this, nullptr).bytes;
}

int64_t update_block_rows(int k) {
    const int64_t least = int64_t(1) << 17;
    return (int64_t(64) * k + least - 1) / least * least;
}

cudaError_t update(
        const UpdatePlan& plan,
        const float* x,
        const float* weights,
        const uint32_t* labels,
        const float* means,
        bool l2,
        const DeviceStatistics& out,
        void* scratch,
        cudaStream_t stream) {
    const Layout l = lay_out(plan, scratch);
    const int64_t segments = plan.segments();
    make_keys_kernel<<<blocks_for(plan.n), threads, 0, stream>>>(
            plan, labels, l.keys, l.rows);
    size_t temp_bytes = l.temp_bytes;
    cudaError_t error = cub::DeviceRadixSort::SortPairs(
            l.temp,
            temp_bytes,
            l.keys,
            l.sorted_keys,
            l.rows,
            l.sorted_rows,
            plan.n,
            0,
            key_bits(plan),
            stream);
    if (error != cudaSuccess) {
        return error;
    }
    find_starts_kernel<<<blocks_for(plan.n + 1), threads, 0, stream>>>(
            plan.n, segments, l.sorted_keys, l.starts);
    count_runs_kernel<<<blocks_for(segments + 1), threads, 0, stream>>>(
            segments, l.starts, l.run_counts);
    temp_bytes = l.temp_bytes;
    error = cub::DeviceScan::ExclusiveSum(
            l.temp,
            temp_bytes,
            l.run_counts,
            l.run_starts,
            segments + 1,
            stream);
    if (error != cudaSuccess) {
        return error;
    }
    const bool aligned = plan.d % 4 == 0 &&
            (reinterpret_cast<uintptr_t>(x) |
             reinterpret_cast<uintptr_t>(means)) %
                            16 ==
                    0;
    const auto sum_runs =
            aligned ? sum_runs_kernel<true> : sum_runs_kernel<false>;
    sum_runs<<<blocks_for(plan.runs() * 32), threads, 0, stream>>>(
            plan,
            x,
            weights,
            means,
            l2,
            l.sorted_rows,
            l.starts,
            l.run_starts,
            l.partial,
            l.scalars);
    combine_runs_kernel<<<plan.k, 128, 0, stream>>>(
            plan, l.starts, l.run_starts, l.partial, l.scalars, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
