// ‖x − μ‖² of (row, component) entries in difference form.

#include <algorithm>

#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

constexpr int slice_threads = 512;
constexpr size_t slice_bytes = 200 << 10; ///< of means in shared memory

/// Columns per slice, so that those of all means fit; 0: none do.
int slice_width(int k, int d) {
    if (d % 4 != 0 || d > 512) {
        return 0;
    }
    // 8 columns are slower (1M × 4096 × 128: 2.1 ms) than means from the
    // second-level cache (1.5 ms)
    for (int width = 32; width >= 16; width /= 2) {
        if ((size_t)k * width * sizeof(float) <= slice_bytes) {
            return width;
        }
    }
    return 0;
}

/// What a thread needs of its warp's 32 entries: its own entry's row and
/// component, and its columns of the rows of its group's entries.
template <int lanes>
struct Ahead {
    uint32_t row = 0, number = 0;
    float4 columns[lanes];

    __device__ void find(
            int64_t e,
            int64_t count,
            const uint32_t* rows,
            const uint32_t* components) {
        row = e < count ? rows[e] : 0;
        number = e < count ? components[e] : 0;
    }
    __device__ void load(const MixtureRowsInput& in, int column) {
        const int group = threadIdx.x % 32 / lanes * lanes;
#pragma unroll
        for (int i = 0; i < lanes; i++) {
            const int64_t r = __shfl_sync(0xffffffff, row, group + i);
            columns[i] = column < in.d
                    ? __ldg(reinterpret_cast<const float4*>(
                              in.x + r * in.d + column))
                    : make_float4(0, 0, 0, 0);
        }
    }
};

/** Parts of ‖x − μ‖² over `width` columns, the means' columns in shared
 * memory: a work item is one slice for some of the entries.
 *
 * width / 4 lanes an entry; a warp has 32 consecutive entries, and a group
 * of lanes goes through as many of them as it has lanes (the same row comes
 * several times in a row).
 */
template <int width>
__global__ void __launch_bounds__(slice_threads) slice_distances_kernel(
        const MixtureRowsInput in,
        int slices,
        int portions,
        int64_t count,
        const uint32_t* __restrict__ rows,
        const uint32_t* __restrict__ components,
        float* __restrict__ partial) {
    extern __shared__ float4 means[];
    constexpr int lanes = width / 4;
    const int lane = threadIdx.x % 32, within = lane % lanes;
    const int64_t at_once = slice_threads;
    for (int item = blockIdx.x; item < slices * portions;
         item += gridDim.x) {
        const int slice = item / portions, portion = item % portions;
        const int column = slice * width + 4 * within;
        __syncthreads(); // the slice before is no longer read
        for (int i = threadIdx.x; i < in.k * lanes; i += slice_threads) {
            const int c = slice * width + i % lanes * 4;
            means[i] = c < in.d
                    ? __ldg(reinterpret_cast<const float4*>(
                              in.means + (int64_t)(i / lanes) * in.d + c))
                    : make_float4(0, 0, 0, 0);
        }
        __syncthreads(); // the slice is there
        int64_t e = portion * at_once + threadIdx.x;
        const int64_t step = portions * at_once;
        // two steps ahead: which rows; one step ahead: their columns
        Ahead<lanes> next;
        next.find(e, count, rows, components);
        next.load(in, column);
        uint32_t row = 0, number = 0;
        if (e + step < count) {
            row = rows[e + step];
            number = components[e + step];
        }
        for (; e - lane < count; e += step) {
            const Ahead<lanes> now = next;
            next.row = row;
            next.number = number;
            if (e + step - lane < count) {
                next.load(in, column);
            }
            if (e + 2 * step < count) {
                row = rows[e + 2 * step];
                number = components[e + 2 * step];
            }
            float mine = 0;
#pragma unroll
            for (int i = 0; i < lanes; i++) {
                const uint32_t c = __shfl_sync(
                        0xffffffff, now.number, lane / lanes * lanes + i);
                const float4 a = now.columns[i];
                const float4 b = means[c * lanes + within];
                const float4 s = make_float4(
                        a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
                float sum = s.x * s.x;
                sum = fmaf(s.y, s.y, sum);
                sum = fmaf(s.z, s.z, sum);
                sum = fmaf(s.w, s.w, sum);
#pragma unroll
                for (int apart = lanes / 2; apart > 0; apart /= 2) {
                    sum += __shfl_xor_sync(0xffffffff, sum, apart);
                }
                mine = i == within ? sum : mine;
            }
            if (e < count) {
                partial[slice * count + e] = mine;
            }
        }
    }
}

/// The same over all columns, means from memory; 8 lanes an entry.
template <bool aligned>
__global__ void distances_kernel(
        const MixtureRowsInput in,
        int64_t count,
        const uint32_t* __restrict__ rows,
        const uint32_t* __restrict__ components,
        float* __restrict__ partial) {
    constexpr int lanes = 8;
    const int64_t e =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    const int within = threadIdx.x % lanes;
    float sum = 0;
    if (e < count) {
        const float* x = in.x + (int64_t)rows[e] * in.d;
        const float* c = in.means + (int64_t)components[e] * in.d;
        if constexpr (aligned) {
            for (int j = 4 * within; j < in.d; j += 4 * lanes) {
                const float4 a = __ldg(reinterpret_cast<const float4*>(x + j));
                const float4 b = __ldg(reinterpret_cast<const float4*>(c + j));
                const float4 s = make_float4(
                        a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
                sum = fmaf(s.x, s.x, sum);
                sum = fmaf(s.y, s.y, sum);
                sum = fmaf(s.z, s.z, sum);
                sum = fmaf(s.w, s.w, sum);
            }
        } else {
            for (int j = within; j < in.d; j += lanes) {
                const float s = __ldg(x + j) - __ldg(c + j);
                sum = fmaf(s, s, sum);
            }
        }
    }
#pragma unroll
    for (int apart = lanes / 2; apart > 0; apart /= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, apart);
    }
    if (e < count && within == 0) {
        partial[e] = sum;
    }
}

template <int width>
cudaError_t launch_slices(
        const MixtureRowsInput& in,
        const EntryArrays& arrays,
        int multiprocessors,
        cudaStream_t stream) {
    const int bytes = in.k * width * sizeof(float);
    const cudaError_t error = cudaFuncSetAttribute(
            slice_distances_kernel<width>,
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const int slices = distance_slices(in.k, in.d);
    const int portions = std::max(1, multiprocessors / slices);
    const int grid = std::min(slices * portions, multiprocessors);
    slice_distances_kernel<width><<<grid, slice_threads, bytes, stream>>>(
            in,
            slices,
            portions,
            arrays.count,
            arrays.rows,
            arrays.keys,
            arrays.partial);
    return cudaGetLastError();
}

} // namespace

int distance_slices(int k, int d) {
    const int width = slice_width(k, d);
    return width ? (d + width - 1) / width : 1;
}

cudaError_t launch_distances(
        const MixtureRowsInput& in,
        const EntryArrays& arrays,
        int multiprocessors,
        cudaStream_t stream) {
    const bool aligned = in.aligned();
    switch (aligned ? slice_width(in.k, in.d) : -1) {
        case 32:
            return launch_slices<32>(in, arrays, multiprocessors, stream);
        case 16:
            return launch_slices<16>(in, arrays, multiprocessors, stream);
        default:
            break;
    }
    // one slice; the others are 0
    const int slices = distance_slices(in.k, in.d);
    if (slices > 1) {
        const cudaError_t error = cudaMemsetAsync(
                arrays.partial + arrays.count,
                0,
                (slices - 1) * arrays.count * sizeof(float),
                stream);
        if (error != cudaSuccess) {
            return error;
        }
    }
    const auto kernel =
            aligned ? distances_kernel<true> : distances_kernel<false>;
    kernel<<<blocks_for(arrays.count * 8), threads, 0, stream>>>(
            in, arrays.count, arrays.rows, arrays.keys, arrays.partial);
    return cudaGetLastError();
}

} // namespace faiss_flash
