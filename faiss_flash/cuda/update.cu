#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <faiss_flash/cuda/update.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// The sizes of a sum of rows by (block of rows, centroid).
struct SegmentPlan {
    int64_t rows;
    int64_t blocks;
    int k, d;

    explicit SegmentPlan(const UpdatePlan& plan)
            : rows(plan.n), blocks(plan.blocks()), k(plan.k), d(plan.d) {}
    /// (block, centroid) pairs
    __host__ __device__ int64_t segments() const {
        return blocks * k;
    }
    /// at most this many runs
    int64_t runs() const {
        return rows / run_rows + std::min(rows, segments());
    }
};

/// Per-run sums that are not vectors.
struct RunScalars {
    double count, energy, product;
};

/// Arrays in the scratch buffer, each on a 256-byte boundary.
struct Layout {
    uint32_t *keys, *sorted_keys, *numbers, *sorted_numbers; ///< (rows)
    uint32_t* starts;     ///< (segments + 1) first sorted item
    uint32_t* run_counts; ///< (segments + 1)
    uint32_t* run_starts; ///< (segments + 1)
    uint32_t* run_segments; ///< (runs)
    float* partial;       ///< (runs, d)
    RunScalars* scalars;  ///< (runs)
    void* temp;
    size_t temp_bytes;
    size_t bytes;
};

int key_bits(const SegmentPlan& plan) {
    int bits = 1;
    while (bits < 32 && (int64_t(1) << bits) < plan.segments()) {
        bits++;
    }
    return bits;
}

Layout lay_out(const SegmentPlan& plan, void* base) {
    Layout l = {};
    uint8_t* at = static_cast<uint8_t*>(base);
    size_t used = 0;
    auto take = [&](auto*& p, int64_t count) {
        using T = std::remove_reference_t<decltype(*p)>;
        p = reinterpret_cast<T*>(at + used);
        used += (count * sizeof(T) + 255) / 256 * 256;
    };
    take(l.keys, plan.rows);
    take(l.sorted_keys, plan.rows);
    take(l.numbers, plan.rows);
    take(l.sorted_numbers, plan.rows);
    take(l.starts, plan.segments() + 1);
    take(l.run_counts, plan.segments() + 1);
    take(l.run_starts, plan.segments() + 1);
    take(l.run_segments, plan.runs());
    take(l.partial, plan.runs() * plan.d);
    take(l.scalars, plan.runs());
    size_t sort_bytes = 0, scan_bytes = 0;
    cub::DeviceRadixSort::SortPairs(
            nullptr,
            sort_bytes,
            l.keys,
            l.sorted_keys,
            l.numbers,
            l.sorted_numbers,
            plan.rows,
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
        uint32_t* keys) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < plan.n) {
        keys[i] = i / plan.block_rows * plan.k + labels[i];
    }
}

__global__ void number_rows_kernel(int64_t rows, uint32_t* numbers) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < rows) {
        numbers[i] = i;
    }
}

/// starts[s] = first sorted item whose key is at least s.
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

/// Which segment each run belongs to; one thread a segment.
__global__ void fill_runs_kernel(
        int64_t segments,
        const uint32_t* run_starts,
        uint32_t* run_segments) {
    const int64_t s = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (s < segments) {
        for (uint32_t r = run_starts[s]; r < run_starts[s + 1]; r++) {
            run_segments[r] = s;
        }
    }
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
__global__ void __launch_bounds__(256, 2) sum_runs_kernel(
        SegmentPlan plan,
        const float* __restrict__ x,
        const float* __restrict__ weights,
        const float* __restrict__ means,
        bool l2,
        const uint32_t* __restrict__ sorted_numbers,
        const uint32_t* __restrict__ starts,
        const uint32_t* __restrict__ run_starts,
        const uint32_t* __restrict__ run_segments,
        float* __restrict__ partial,
        RunScalars* __restrict__ scalars) {
    const int lane = threadIdx.x % 32;
    const int64_t runs = run_starts[plan.segments()];
    const int64_t warps = (int64_t)gridDim.x * blockDim.x / 32;
    for (int64_t run = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
         run < runs;
         run += warps) {
        const uint32_t segment = run_segments[run];
        const int64_t within = run - run_starts[segment];
        const int64_t first = starts[segment] + within * run_rows;
        const int rows =
                min((int64_t)run_rows, (int64_t)starts[segment + 1] - first);
        const int d = plan.d;

        // of the lane's rows, and of its columns
        double count = 0, energy = 0, product = 0;
        for (int column0 = 0; column0 < d; column0 += slice) {
            const LaneColumns<aligned> columns(column0, lane, d);
            float c[4] = {}, sum[4] = {};
            float slice_energy = 0, slice_product = 0;
            columns.load(means + segment % uint32_t(plan.k) * (int64_t)d, c);
            for (int i0 = 0; i0 < rows; i0 += 32) {
                // the next 32 rows, one per lane
                uint32_t mine = 0;
                float weight = 0;
                if (i0 + lane < rows) {
                    mine = sorted_numbers[first + i0 + lane];
                    weight = weights ? weights[mine] : 1;
                }
                if (column0 == 0) {
                    count += weight;
                }
                const int block = min(32, rows - i0);
#pragma unroll(aligned ? 16 : 8)
                for (int i = 0; i < block; i++) {
                    const int64_t row = __shfl_sync(0xffffffff, mine, i);
                    const float w = __shfl_sync(0xffffffff, weight, i);
                    float value[4];
                    columns.load(x + row * d, value);
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        sum[e] = fmaf(w, value[e], sum[e]);
                        const float step = value[e] - c[e];
                        slice_energy = fmaf(w * step, step, slice_energy);
                        slice_product += l2 ? step * step : value[e] * c[e];
                    }
                }
            }
#pragma unroll
            for (int e = 0; e < 4; e++) {
                if (e < columns.count) {
                    partial[run * d + columns.column(e)] = sum[e];
                }
            }
            energy += slice_energy;
            product += slice_product;
        }
        count = warp_sum(count);
        energy = warp_sum(energy);
        product = warp_sum(product);
        if (lane == 0) {
            scalars[run] = {count, energy, product};
        }
    }
}

/// fn(run) for the runs of centroid c, block after block. A warp reads the
/// bounds of 32 blocks' runs at once: one after the other, the sums would
/// wait for them most of the time.
template <class Fn>
__device__ void for_each_run(
        const SegmentPlan& plan,
        const uint32_t* run_starts,
        int c,
        Fn&& fn) {
    for (int64_t b0 = 0; b0 < plan.blocks; b0 += 32) {
        const int64_t b = b0 + threadIdx.x % 32;
        uint32_t first = 0, end = 0;
        if (b < plan.blocks) {
            first = run_starts[b * plan.k + c];
            end = run_starts[b * plan.k + c + 1];
        }
        const int count = min(plan.blocks - b0, (int64_t)32);
        for (int i = 0; i < count; i++) {
            const uint32_t last = __shfl_sync(0xffffffff, end, i);
            for (uint32_t r = __shfl_sync(0xffffffff, first, i); r < last;
                 r++) {
                fn(r);
            }
        }
    }
}

constexpr int combine_threads = 128;

/// Runs of each centroid, in order, onto the accumulators; the first warp
/// adds up what is not a vector.
__global__ void __launch_bounds__(combine_threads + 32) combine_runs_kernel(
        SegmentPlan plan,
        const uint32_t* __restrict__ starts,
        const uint32_t* __restrict__ run_starts,
        const float* __restrict__ partial,
        const RunScalars* __restrict__ scalars,
        DeviceStatistics out) {
    const int c = blockIdx.x;
    const int d = plan.d;
    if (threadIdx.x >= 32) {
        // whole warps go through the loop: they share the bounds
        for (int j0 = 0; j0 < d; j0 += combine_threads) {
            const int j = j0 + threadIdx.x - 32;
            double* to = out.sums + (int64_t)c * d + j;
            double sum = j < d ? *to : 0;
            for_each_run(plan, run_starts, c, [&](uint32_t r) {
                sum += j < d ? partial[(int64_t)r * d + j] : 0;
            });
            if (j < d) {
                *to = sum;
            }
        }
        return;
    }
    double count = out.counts[c], energy = out.energy[c];
    double product = out.products[c];
    for_each_run(plan, run_starts, c, [&](uint32_t r) {
        const RunScalars run = scalars[r];
        count += run.count;
        energy += run.energy;
        product += run.product;
    });
    int64_t members = 0;
    for (int64_t b = threadIdx.x; b < plan.blocks; b += 32) {
        const int64_t s = b * plan.k + c;
        members += starts[s + 1] - starts[s];
    }
    members = warp_sum(members);
    if (threadIdx.x == 0) {
        out.counts[c] = count;
        out.energy[c] = energy;
        out.products[c] = product;
        out.members[c] += members;
    }
}

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

} // namespace

size_t UpdatePlan::scratch_bytes() const {
    return lay_out(SegmentPlan(*this), nullptr).bytes;
}

int64_t update_block_rows(int k) {
    const int64_t least = int64_t(1) << 17;
    return (int64_t(64) * k + least - 1) / least * least;
}

cudaError_t update(
        const UpdatePlan& sizes,
        const float* x,
        const float* weights,
        const uint32_t* labels,
        const float* means,
        bool l2,
        const DeviceStatistics& out,
        void* scratch,
        cudaStream_t stream) {
    const SegmentPlan plan(sizes);
    const Layout l = lay_out(plan, scratch);
    const int64_t segments = plan.segments();
    make_keys_kernel<<<blocks_for(plan.rows), threads, 0, stream>>>(
            sizes, labels, l.keys);
    number_rows_kernel<<<blocks_for(plan.rows), threads, 0, stream>>>(
            plan.rows, l.numbers);
    size_t temp_bytes = l.temp_bytes;
    cudaError_t error = cub::DeviceRadixSort::SortPairs(
            l.temp,
            temp_bytes,
            l.keys,
            l.sorted_keys,
            l.numbers,
            l.sorted_numbers,
            plan.rows,
            0,
            key_bits(plan),
            stream);
    if (error != cudaSuccess) {
        return error;
    }
    find_starts_kernel<<<blocks_for(plan.rows + 1), threads, 0, stream>>>(
            plan.rows, segments, l.sorted_keys, l.starts);
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
    fill_runs_kernel<<<blocks_for(segments), threads, 0, stream>>>(
            segments, l.run_starts, l.run_segments);
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
            l.sorted_numbers,
            l.starts,
            l.run_starts,
            l.run_segments,
            l.partial,
            l.scalars);
    combine_runs_kernel<<<plan.k, combine_threads + 32, 0, stream>>>(
            plan, l.starts, l.run_starts, l.partial, l.scalars, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
