#include <algorithm>
#include <type_traits>

#include <faiss_flash/cuda/prepare.cuh>
#include <faiss_flash/cuda/rows_view.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

struct RowNorms {
    float norm, error, norm2;
};

/// A coordinate as a half, and what becomes of the norms.
struct Converted {
    float norm2 = 0, error2 = 0;

    __device__ __half add(float value) {
        const float largest = 65504; // of fp16
        const __half half =
                __float2half_rn(fminf(fmaxf(value, -largest), largest));
        const float difference = value - __half2float(half);
        norm2 += value * value;
        error2 += difference * difference;
        return half;
    }
};

/// Norms of a row from its sums, rounded up.
__device__ RowNorms norms_of(float norm2, float error2, int d) {
    // a sum of d squares in single precision is off by less than this
    const float up = 1 + (d + 64) * 0x1p-24f;
    return {sqrtf(norm2) * up, sqrtf(error2) * up, norm2};
}

/// One warp converts one row. Two columns per lane and step: d_padded is a
/// multiple of 8.
template <class T>
__device__ RowNorms
convert_row(const T* x, int d, int d_padded, Shift shift, __half* halves) {
    Converted row;
    for (int j = threadIdx.x % 32 * 2; j < d_padded; j += 64) {
        __half half[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            half[e] = row.add(
                    j + e < d ? (to_float(x[j + e]) - shift.offset[j + e]) *
                                    shift.scale
                              : 0);
        }
        *reinterpret_cast<__half2*>(halves + j) =
                __halves2half2(half[0], half[1]);
    }
    return norms_of(warp_sum(row.norm2), warp_sum(row.error2), d);
}

template <class T>
__global__ void prepare_rows_kernel(
        int64_t n,
        int d,
        int d_padded,
        const T* x,
        Shift shift,
        __half* halves,
        float* norm,
        float* error) {
    const int64_t warps = (int64_t)gridDim.x * blockDim.x / 32;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
         i < n;
         i += warps) {
        const RowNorms norms = convert_row(
                x + i * d, d, d_padded, shift, halves + i * d_padded);
        if (threadIdx.x % 32 == 0) {
            norm[i] = norms.norm;
            error[i] = norms.error;
        }
    }
}

/// Four coordinates, or halves, at once.
template <class T>
struct alignas(4 * sizeof(T)) Four {
    T v[4];
};

/// The same for rows of d % 4 == 0 coordinates that start on boundaries of
/// Four<T>. Eight lanes a row, four columns per lane and load, four loads
/// under way: reading is what takes the time.
template <class T>
__global__ void __launch_bounds__(256) prepare_aligned_rows_kernel(
        int64_t n,
        int d,
        int d_padded,
        const T* __restrict__ x,
        Shift shift,
        __half* __restrict__ halves,
        float* __restrict__ norm,
        float* __restrict__ error) {
    constexpr int lanes = 8, loads = 4;
    const int lane = threadIdx.x % lanes;
    const int64_t step = (int64_t)gridDim.x * blockDim.x / lanes;
    const int64_t first =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    // the lanes of a warp stay together: they exchange sums
    for (int64_t i0 = first - threadIdx.x % 32 / lanes; i0 < n; i0 += step) {
        const int64_t i = i0 + threadIdx.x % 32 / lanes;
        const bool real = i < n;
        const T* row = x + i * d;
        // a sum for each place of four, as many as a warp would have
        Converted sums[4];
        for (int j0 = 4 * lane; j0 < d_padded; j0 += 4 * lanes * loads) {
            Four<T> in[loads];
#pragma unroll
            for (int l = 0; l < loads; l++) {
                const int j = j0 + 4 * lanes * l;
                if (real && j < d) {
                    in[l] = *reinterpret_cast<const Four<T>*>(row + j);
                }
            }
#pragma unroll
            for (int l = 0; l < loads; l++) {
                const int j = j0 + 4 * lanes * l;
                if (real && j < d_padded) {
                    Four<float> offset = {};
                    if (j < d) {
                        offset = *reinterpret_cast<const Four<float>*>(
                                shift.offset + j);
                    }
                    Four<__half> out;
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        out.v[e] = sums[e].add(
                                j < d ? (to_float(in[l].v[e]) - offset.v[e]) *
                                                shift.scale
                                      : 0);
                    }
                    *reinterpret_cast<Four<__half>*>(
                            halves + i * d_padded + j) = out;
                }
            }
        }
        float norm2 = (sums[0].norm2 + sums[1].norm2) +
                (sums[2].norm2 + sums[3].norm2);
        float error2 = (sums[0].error2 + sums[1].error2) +
                (sums[2].error2 + sums[3].error2);
#pragma unroll
        for (int apart = lanes / 2; apart > 0; apart /= 2) {
            norm2 += __shfl_xor_sync(0xffffffff, norm2, apart);
            error2 += __shfl_xor_sync(0xffffffff, error2, apart);
        }
        if (real && lane == 0) {
            const RowNorms norms = norms_of(norm2, error2, d);
            norm[i] = norms.norm;
            error[i] = norms.error;
        }
    }
}

template <class T>
__global__ void to_floats_kernel(int64_t count, const T* from, float* to) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        to[i] = to_float(from[i]);
    }
}

/// Sums and maxima of norms and errors, in a fixed order.
struct Extent {
    double norm_sum = 0, error_sum = 0;
    float norm_max = 0, error_max = 0;

    __device__ void add(const Extent& other) {
        norm_sum += other.norm_sum;
        error_sum += other.error_sum;
        norm_max = fmaxf(norm_max, other.norm_max);
        error_max = fmaxf(error_max, other.error_max);
    }
};

constexpr int threads = 256;
constexpr int extent_blocks = 256;
static_assert(extent_blocks * sizeof(Extent) <= prepare_scratch_bytes);

template <class Extent>
__device__ Extent block_total(const Extent& mine) {
    __shared__ Extent all[threads];
    all[threadIdx.x] = mine;
    __syncthreads(); // every thread's part is there
    for (int step = threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            all[threadIdx.x].add(all[threadIdx.x + step]);
        }
        __syncthreads(); // this level is done
    }
    return all[0];
}

__global__ void extent_kernel(
        int64_t n,
        const float* norm,
        const float* error,
        Extent* partial) {
    Extent mine;
    for (int64_t i = (int64_t)blockIdx.x * threads + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * threads) {
        Extent row;
        row.norm_sum = row.norm_max = norm[i];
        row.error_sum = row.error_max = error[i];
        mine.add(row);
    }
    const Extent total = block_total(mine);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = total;
    }
}

__global__ void typical_kernel(
        int64_t n,
        const Extent* partial,
        TypicalRow* typical) {
    const Extent total = block_total(partial[threadIdx.x]);
    if (threadIdx.x == 0) {
        const float norm = total.norm_sum / n, error = total.error_sum / n;
        typical->norm = fminf(total.norm_max, 1.5f * norm);
        typical->error = fminf(total.error_max, 1.5f * error);
        typical->largest_norm = fminf(total.norm_max, 4 * norm);
    }
}

__global__ void prepare_centroids_kernel(
        int k,
        int k_padded,
        int d,
        int d_padded,
        const float* centroids,
        Shift shift,
        __half* halves,
        float* norm,
        float* error,
        float* norm2) {
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (c >= k_padded) {
        return;
    }
    const bool real = c < k;
    const RowNorms norms = convert_row(
            centroids + (int64_t)(real ? c : 0) * d,
            real ? d : 0,
            d_padded,
            shift,
            halves + (int64_t)c * d_padded);
    if (threadIdx.x % 32 == 0) {
        norm[c] = norms.norm;
        error[c] = norms.error;
        norm2[c] = norms.norm2;
    }
}

/// Extremes over all centroids; every block finds them for itself.
struct CentroidRange {
    float largest_norm = 0, largest_error = 0, smallest_norm = INFINITY;

    __device__ void add(const CentroidRange& other) {
        largest_norm = fmaxf(largest_norm, other.largest_norm);
        largest_error = fmaxf(largest_error, other.largest_error);
        smallest_norm = fminf(smallest_norm, other.smallest_norm);
    }
};

__global__ void __launch_bounds__(threads) alpha_kernel(
        int k,
        int k_padded,
        int d,
        bool l2,
        const TypicalRow* typical,
        const float* norm,
        const float* error,
        const float* norm2,
        float* alpha,
        ScoreTerms* terms) {
    CentroidRange mine;
    for (int c = threadIdx.x; c < k; c += threads) {
        mine.add({norm[c], error[c], norm[c]});
    }
    const CentroidRange all = block_total(mine);
    const TypicalRow row = *typical;
    // Some centroid is at most `reach` away from every row up to X. One
    // further than that from all of them is nobody's.
    const float x = row.largest_norm;
    const float reach = 1.01f * (x + all.smallest_norm);
    const float far = l2 ? x + reach : INFINITY;
    const float near_norm = fminf(all.largest_norm, far);
    // largest score, and errors with room to spare above 2¹⁷
    const float largest = l2 ? (x + near_norm) * (x + near_norm)
                             : 2 * x * all.largest_norm;
    const float below = score_error(
            l2, d, row.norm, row.error, near_norm, all.largest_error);
    const float range =
            fmaxf(fmaxf(largest, 0x1p8f * below), 0x1p-60f) * 1.01f;
    int exponent;
    frexpf(range, &exponent);
    const float scale = ldexpf(1, 24 - exponent); // range·scale ≤ 2²⁴
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *terms = {(l2 ? -2 : -1) * scale,
                  scale,
                  all.largest_norm,
                  all.largest_error};
    }
    const int c = blockIdx.x * threads + threadIdx.x;
    if (c >= k_padded) {
        return;
    }
    const float base = l2 ? x * x + norm2[c] : x * all.largest_norm;
    const float q = base -
            score_error(l2, d, row.norm, row.error, norm[c], error[c]);
    alpha[c] = c < k && !(norm[c] > 1.01f * far) ? 0x1p18f + scale * q
                                                 : INFINITY;
}

} // namespace

cudaError_t launch_to_floats(
        int64_t count,
        const DeviceVectors& from,
        float* to,
        cudaStream_t stream) {
    with_type(from, [&](auto* coordinates) {
        to_floats_kernel<<<2048, threads, 0, stream>>>(count, coordinates, to);
    });
    return cudaGetLastError();
}

cudaError_t launch_prepare_rows(
        int64_t n,
        int d,
        int d_padded,
        const DeviceVectors& x,
        Shift shift,
        __half* halves,
        float* norm,
        float* error,
        TypicalRow* typical,
        void* scratch,
        cudaStream_t stream) {
    const int64_t blocks = (n * 32 + threads - 1) / threads;
    const int64_t grid = std::min<int64_t>(blocks, 132 * 16);
    with_type(x, [&](auto* rows) {
        const bool aligned = d % 4 == 0 &&
                reinterpret_cast<uintptr_t>(rows) % (4 * sizeof(*rows)) == 0;
        const auto kernel = aligned
                ? prepare_aligned_rows_kernel<
                          std::remove_const_t<std::remove_pointer_t<
                                  decltype(rows)>>>
                : prepare_rows_kernel<std::remove_const_t<
                          std::remove_pointer_t<decltype(rows)>>>;
        kernel<<<grid, threads, 0, stream>>>(
                n, d, d_padded, rows, shift, halves, norm, error);
    });
    Extent* partial = static_cast<Extent*>(scratch);
    extent_kernel<<<extent_blocks, threads, 0, stream>>>(
            n, norm, error, partial);
    typical_kernel<<<1, extent_blocks, 0, stream>>>(n, partial, typical);
    return cudaGetLastError();
}

cudaError_t launch_prepare_centroids(
        int k,
        int k_padded,
        int d,
        int d_padded,
        const float* centroids,
        Shift shift,
        __half* halves,
        float* norm,
        float* error,
        float* norm2,
        cudaStream_t stream) {
    prepare_centroids_kernel<<<
            (k_padded * 32 + threads - 1) / threads,
            threads,
            0,
            stream>>>(
            k,
            k_padded,
            d,
            d_padded,
            centroids,
            shift,
            halves,
            norm,
            error,
            norm2);
    return cudaGetLastError();
}

cudaError_t launch_alpha(
        int k,
        int k_padded,
        int d,
        bool l2,
        const TypicalRow* typical,
        const float* norm,
        const float* error,
        const float* norm2,
        float* alpha,
        ScoreTerms* terms,
        cudaStream_t stream) {
    alpha_kernel<<<(k_padded + threads - 1) / threads, threads, 0, stream>>>(
            k, k_padded, d, l2, typical, norm, error, norm2, alpha, terms);
    return cudaGetLastError();
}

} // namespace faiss_flash
