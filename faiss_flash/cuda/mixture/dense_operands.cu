// Rows and means to operands of matrix products.

#include <faiss_flash/cuda/mixture/dense_products.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

constexpr double pi = 3.141592653589793;

unsigned blocks_for(int64_t items, int per_block) {
    return (items + per_block - 1) / per_block;
}

/// A value in two halves at column j: low, high, high of means, and high, low,
/// high of rows.
template <bool mean>
__device__ void store_halves(float value, int j, int width, __half* out) {
    const __half high = __float2half_rn(value);
    const __half low = __float2half_rn(value - __half2float(high));
    out[j] = mean ? low : high;
    out[width + j] = mean ? high : low;
    out[2 * width + j] = high;
}

/// One warp: x' in two halves each. Returns ‖x'‖².
template <bool mean>
__device__ float split_row(
        const float* x,
        int d,
        int width,
        Shift shift,
        __half* out) {
    float norm2 = 0;
    for (int j = threadIdx.x % 32; j < width; j += 32) {
        const float value =
                j < d ? (x[j] - shift.offset[j]) * shift.scale : 0;
        store_halves<mean>(value, j, width, out);
        norm2 += value * value;
    }
    return warp_sum(norm2);
}

/// x' s, and (x' t)².
__device__ float2 diagonal_values(
        const float* x,
        int j,
        int d,
        const DenseProducts& products) {
    const float value = x[j] - products.shift.offset[j];
    const float linear = value * products.scales[j];
    const float root = value * products.scales[d + j];
    return make_float2(linear, root * root);
}

/// Wherever they are, which is the same for all rows.
__device__ float4 load_four_of(const float* x) {
    return reinterpret_cast<uintptr_t>(x) % 16 == 0
            ? __ldg(reinterpret_cast<const float4*>(x))
            : make_float4(x[0], x[1], x[2], x[3]);
}

/// x' of four columns; or x' s and (x' t)².
template <bool diagonal>
__device__ void split_four(
        const float* x,
        int j,
        int d,
        const DenseProducts& products,
        float (&values)[2][4]) {
    const float4 of = load_four_of(x + j);
    const float4 offset = load_four_of(products.shift.offset + j);
    const float moved[4] = {
            of.x - offset.x, of.y - offset.y, of.z - offset.z, of.w - offset.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if constexpr (diagonal) {
            const float root = moved[e] * products.scales[d + j + e];
            values[0][e] = moved[e] * products.scales[j + e];
            values[1][e] = root * root;
        } else {
            values[0][e] = moved[e] * products.shift.scale;
        }
    }
}

/// As store_halves<false>(), four of them.
__device__ void store_four(
        const float (&values)[4],
        __half* out,
        int width,
        bool third) {
    struct alignas(8) Halves {
        __half v[4];
    } high, low;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        high.v[e] = __float2half_rn(values[e]);
        low.v[e] = __float2half_rn(values[e] - __half2float(high.v[e]));
    }
    *reinterpret_cast<Halves*>(out) = high;
    *reinterpret_cast<Halves*>(out + width) = low;
    if (third) {
        *reinterpret_cast<Halves*>(out + 2 * width) = high;
    }
}

template <bool diagonal>
__global__ void split_rows_kernel(
        const MixtureRowsInput in,
        int64_t rows,
        const DensePiece* pieces,
        const DenseProducts products) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= rows) {
        return;
    }
    const DensePiece piece = pieces[i / products.piece_rows];
    const uint32_t within = i % products.piece_rows;
    const bool real = within < piece.count;
    const float* x = in.x +
            (real ? (int64_t)products.numbers[piece.first + within] : 0) *
                    in.d;
    const int d = real ? in.d : 0;
    __half* out = products.rows + i * 3 * products.width;
    float norm2 = 0;
    if (in.d % 4 == 0) { // four columns at once
        const int part_columns = diagonal ? products.width / 2 : products.width;
        for (int j = threadIdx.x % 32 * 4; j < part_columns; j += 128) {
            float values[2][4] = {};
            if (j < d) {
                split_four<diagonal>(x, j, in.d, products, values);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) {
                norm2 += diagonal ? 0 : values[0][e] * values[0][e];
            }
#pragma unroll
            for (int part = 0; part < (diagonal ? 2 : 1); part++) {
                store_four(
                        values[part],
                        out + part * part_columns + j,
                        products.width,
                        products.third);
            }
        }
        norm2 = warp_sum(norm2);
    } else if constexpr (diagonal) {
        const int half = products.width / 2;
        for (int j = threadIdx.x % 32; j < half; j += 32) {
            float2 values = make_float2(0, 0);
            if (j < d) {
                values = diagonal_values(x, j, d, products);
            }
            store_halves<false>(values.x, j, products.width, out);
            store_halves<false>(values.y, half + j, products.width, out);
        }
    } else {
        norm2 = split_row<false>(
                x, d, products.width, products.shift, out);
    }
    if (threadIdx.x % 32 == 0) {
        products.norm2[i] = norm2;
    }
}

/// One warp a row: the norm of its operand, rounded up.
__global__ void diagonal_norms_kernel(
        const MixtureRowsInput in,
        const DenseProducts products,
        float* norm) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= in.n) {
        return;
    }
    float norm2 = 0;
    for (int j = threadIdx.x % 32; j < in.d; j += 32) {
        const float2 values =
                diagonal_values(in.x + i * in.d, j, in.d, products);
        norm2 += values.x * values.x + values.y * values.y;
    }
    norm2 = warp_sum(norm2);
    if (threadIdx.x % 32 == 0) {
        norm[i] = sqrtf(norm2) * (1 + (in.d + 64) * 0x1p-24f);
    }
}

/// What is lost of |u||w| where operands of `width` columns are multiplied.
/// Accumulation truncates, as much as there is of the sum at a step: the low
/// halves come first, and their products are 2⁻¹⁰ of the others together.
/// Operands keep 22 bits.
__device__ double product_loss(int width) {
    return 1.06 * 0x1p-23 * ((1 + 3 * 0x1p-10) * width + 16) + 3 * 0x1p-22;
}

/// Allowed for everything but products: a.
__device__ double allowed_error(double log_scale) {
    return dense_products_error -
            0x1p-21 * (isinf(log_scale) ? 0 : fabs(log_scale));
}

/** The largest norm of rows whose log densities products give well enough.
 * Their error is at most
 *   h (2 ‖x'‖‖μ'‖ α + (‖x'‖ + ‖μ'‖)² β)
 * and that of a: α, see product_loss(); β, norms and the last additions. NaN
 * where values are too large for it all.
 */
__device__ double largest_norm_for(
        int d,
        int width,
        double h,
        double norm,
        double log_scale) {
    const double alpha = product_loss(width);
    const double beta = (d / 32 + 16) * 0x1p-24;
    // a r² + 2 b r + c ≤ 0
    const double a = h * beta;
    const double b = h * norm * (alpha + beta);
    const double c = h * beta * norm * norm - allowed_error(log_scale);
    return c >= 0 ? 0 : -c / (b + sqrt(b * b - a * c));
}

/// π_k times `moment` of component k, its part of the mean over rows.
__device__ double weighed(
        double log_scale,
        double log_volume,
        double moment) {
    const double weight = exp(log_scale + log_volume);
    return weight > 0 ? weight * moment : 0;
}

/// One warp a component.
__global__ void split_means_kernel(
        const MixtureRowsInput in,
        const DenseProducts products) {
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (c >= products.k_padded) {
        return;
    }
    const bool real = c < in.k;
    const double norm2 = split_row<true>(
            in.means + (int64_t)(real ? c : 0) * in.d,
            real ? in.d : 0,
            products.width,
            products.shift,
            products.means + (int64_t)c * 3 * products.width);
    if (threadIdx.x % 32 == 0) {
        const double scale = products.shift.scale;
        float2 column = make_float2(-INFINITY, 0);
        if (real) {
            const ComponentTerms terms = in.components[c];
            const double h = terms.precision / (scale * scale);
            column = make_float2(terms.log_scale - h * norm2, h);
            products.reach[c] = make_double2(
                    largest_norm_for(
                            in.d,
                            products.width,
                            h,
                            sqrt(norm2),
                            terms.log_scale),
                    weighed(terms.log_scale,
                            0.5 * in.d * log(pi / terms.precision),
                            norm2 + in.d / (2 * h)));
        }
        products.columns[c] = column;
    }
}

/** The same for diagonal mixtures: u = [x' s, (x' t)²] by w = [2hμ'/s, −h/t²]
 * divided by 2 h_k, which makes its norm largest_operand; the error of a score
 * is at most |u||w| 2 h_k (α + 2⁻²²) and that of a. One warp a component.
 */
__global__ void split_diagonal_means_kernel(
        const MixtureRowsInput in,
        const DenseProducts products) {
    constexpr double largest_operand = 1024;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32;
    if (c >= products.k_padded) {
        return;
    }
    const bool real = c < in.k;
    const int d = in.d, half = products.width / 2;
    const float* means = in.means + (int64_t)(real ? c : 0) * d;
    const float* half_precisions =
            in.half_precisions + (int64_t)(real ? c : 0) * d;
    double norm2 = 0, shifted = 0, log_volume = 0, moment = 0, spread = 0;
    for (int j = lane; real && j < d; j += 32) {
        const double h = half_precisions[j];
        const double s = products.scales[j], t = products.scales[d + j];
        const double mean = (double)means[j] - products.shift.offset[j];
        const double linear = 2 * h * mean / s, square = h / (t * t);
        norm2 += linear * linear + square * square;
        const double m2 = mean * mean, v = 0.5 / h, t2 = t * t;
        shifted += h * m2;
        log_volume += 0.5 * log(pi / h);
        moment += s * s * (m2 + v) +
                t2 * t2 * (m2 * m2 + 6 * m2 * v + 3 * v * v);
        spread = fmax(spread, 1 + m2 / v);
    }
    norm2 = warp_sum(norm2);
    shifted = warp_sum(shifted);
    log_volume = warp_sum(log_volume);
    moment = warp_sum(moment);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        spread = fmax(spread, __shfl_xor_sync(0xffffffff, spread, step));
    }
    const double unit = sqrt(norm2) / largest_operand; // 2 h_k
    const bool usable = real && unit > 1e-30 && unit < 1e30;
    __half* out = products.means + (int64_t)c * 3 * products.width;
    for (int j = lane; j < half; j += 32) {
        float linear = 0, square = 0;
        if (usable && j < d) {
            const double h = half_precisions[j];
            const double s = products.scales[j], t = products.scales[d + j];
            const double mean = (double)means[j] - products.shift.offset[j];
            linear = 2 * h * mean / (s * unit);
            square = -h / (t * t * unit);
        }
        store_halves<true>(linear, j, products.width, out);
        store_halves<true>(square, half + j, products.width, out);
    }
    if (lane == 0) {
        float2 column = make_float2(-INFINITY, 0);
        if (real) {
            const double log_scale = in.components[c].log_scale;
            const double a = log_scale - shifted;
            double reach = 0;
            if (usable && spread <= dense_most_spread) {
                column = make_float2(a, unit / 2);
                reach = allowed_error(isinf(a) ? 0 : fabs(a) + shifted) /
                        (sqrt(norm2) *
                         (product_loss(products.width) + 0x1p-22));
            }
            products.reach[c] = make_double2(
                    reach, weighed(log_scale, log_volume, moment));
        }
        products.columns[c] = column;
    }
}

} // namespace

cudaError_t launch_split_means(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        cudaStream_t stream) {
    const auto kernel = in.half_precisions ? split_diagonal_means_kernel
                                           : split_means_kernel;
    kernel<<<blocks_for(products.k_padded, 8), 256, 0, stream>>>(
            in, products);
    return cudaGetLastError();
}

cudaError_t launch_split_rows(
        const MixtureRowsInput& in,
        int64_t rows,
        const DensePiece* pieces,
        const DenseProducts& products,
        cudaStream_t stream) {
    const auto kernel = in.half_precisions ? split_rows_kernel<true>
                                           : split_rows_kernel<false>;
    kernel<<<blocks_for(rows, 8), 256, 0, stream>>>(
            in, rows, pieces, products);
    return cudaGetLastError();
}

cudaError_t launch_diagonal_norms(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        float* norm,
        cudaStream_t stream) {
    diagonal_norms_kernel<<<blocks_for(in.n, 8), 256, 0, stream>>>(
            in, products, norm);
    return cudaGetLastError();
}

} // namespace faiss_flash
