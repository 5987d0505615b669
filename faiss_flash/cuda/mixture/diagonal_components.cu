// The components' side of a diagonal mixture's scores.

#include <cstring>

#include <faiss_flash/cuda/mixture/diagonal.cuh>
#include <faiss_flash/cuda/mixture/diagonal_scores.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

using namespace diagonal;

namespace {

/// A dimension in which a component has collapsed would cost all others their
/// precision: its h is lowered until it costs a typical row this many nats.
constexpr double most_slack = 2;

/// One warp a component.
__global__ void diagonal_terms_kernel(
        int k,
        int d,
        const float* variances,
        const float* weights,
        ComponentTerms* components,
        float* half_precisions) {
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (c >= k) {
        return;
    }
    double logs = 0;
    for (int j = threadIdx.x % 32; j < d; j += 32) {
        const double variance = variances[(int64_t)c * d + j];
        logs += log(6.283185307179586 * variance);
        half_precisions[(int64_t)c * d + j] = 0.5 / variance;
    }
    logs = warp_sum(logs);
    if (threadIdx.x % 32 == 0) {
        components[c] = {log((double)weights[c]) - 0.5 * logs, 1};
    }
}

/// Mean squares over the mixture of x', x'²; squares of what is usual for
/// components' 2hμ', h. One thread block a dimension.
__global__ void __launch_bounds__(threads) moments_kernel(
        int k,
        int d,
        const float* means,
        const float* offset,
        const float* variances,
        const float* weights,
        double* moments) {
    const int j = blockIdx.x;
    double sums[4] = {};
    for (int c = threadIdx.x; c < k; c += threads) {
        const int64_t at = (int64_t)c * d + j;
        const double mean = (double)means[at] - offset[j];
        const double m2 = mean * mean, v = variances[at], h = 0.5 / v;
        const double w = weights[c];
        sums[0] += w * (m2 + v);
        sums[1] += w * (m2 * m2 + 6 * m2 * v + 3 * v * v);
        // means of roots: a few narrow components do not count for much
        sums[2] += sqrt(2 * h * fabs(mean)) / k;
        sums[3] += sqrt(h) / k;
    }
    __shared__ double all[4][threads / 32];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sums[i] = warp_sum(sums[i]);
        if (threadIdx.x % 32 == 0) {
            all[i][threadIdx.x / 32] = sums[i];
        }
    }
    __syncthreads(); // all warps' sums are there
    if (threadIdx.x < 4) {
        double sum = 0;
        for (int w = 0; w < threads / 32; w++) {
            sum += all[threadIdx.x][w];
        }
        moments[threadIdx.x * d + j] =
                threadIdx.x < 2 ? sum : sum * sum * sum * sum;
    }
}

/// One thread block. A column of u with rms p and of w with rms q is scaled
/// by √(q / p): that makes |u||w| smallest. Behind the scales, rms |u|.
__global__ void __launch_bounds__(threads) scales_kernel(
        int d,
        const double* moments,
        float* scales) {
    __shared__ double largest[threads], norms[threads / 32];
    double norm2 = 0;
    auto share = [&](int i) { // of column i, squared and squared again
        return moments[i] * moments[2 * d + i];
    };
    double mine = 0;
    for (int i = threadIdx.x; i < 2 * d; i += threads) {
        mine = fmax(mine, share(i));
    }
    largest[threadIdx.x] = mine;
    __syncthreads(); // all threads' are there
    for (int step = threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            largest[threadIdx.x] =
                    fmax(largest[threadIdx.x], largest[threadIdx.x + step]);
        }
        __syncthreads(); // this level is done
    }
    // columns of u are 1/8 to 8 in the mean, so that the halves of rows far
    // out are still in range, and those of near ones not too small
    const double top = sqrt(sqrt(largest[0]));
    for (int i = threadIdx.x; i < 2 * d; i += threads) {
        const double to =
                8 * fmax(sqrt(sqrt(share(i))) / fmax(top, 1e-300), 1.0 / 64);
        double exponent = log2(to / fmax(sqrt(moments[i]), 1e-300));
        if (i >= d) {
            exponent /= 2; // t is squared with x'
        }
        const double scale = exp2(fmin(fmax(rint(exponent), -126.0), 126.0));
        scales[i] = scale;
        norm2 += (i < d ? scale * scale : scale * scale * scale * scale) *
                moments[i];
    }
    norm2 = warp_sum(norm2);
    if (threadIdx.x % 32 == 0) {
        norms[threadIdx.x / 32] = norm2;
    }
    __syncthreads(); // all warps' sums are there
    if (threadIdx.x == 0) {
        for (int w = 1; w < threads / 32; w++) {
            norm2 += norms[w];
        }
        scales[2 * d] = sqrt(norm2);
    }
}

/// One warp a component; a_k and h_k in double precision.
__global__ void diagonal_means_kernel(
        int k,
        int k_padded,
        int d,
        int d_padded,
        const float* means,
        const float* offset,
        const float* half_precisions,
        const ComponentTerms* components,
        const float* scales,
        __half* halves,
        float2* columns) {
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32;
    if (c >= k_padded) {
        return;
    }
    halves += (int64_t)c * 2 * d_padded;
    const bool real = c < k;
    means += (int64_t)(real ? c : 0) * d;
    half_precisions += (int64_t)(real ? c : 0) * d;
    const double most =
            most_slack / (loss_per_norm(d_padded) * (double)scales[2 * d]);
    // h of a column, lowered, and its part of |w|²
    auto lowered = [&](int j, double& part) {
        const double h = half_precisions[j];
        const double t = scales[d + j];
        const double linear =
                2 * h * ((double)means[j] - offset[j]) / scales[j];
        const double square = h / (t * t);
        const double size = sqrt(linear * linear + square * square);
        const double factor = size > most ? most / size : 1;
        part = factor * size * factor * size;
        return factor * h;
    };
    double norm2 = 0;
    for (int j = lane; real && j < d; j += 32) {
        double part;
        lowered(j, part);
        norm2 += part;
    }
    norm2 = warp_sum(norm2);
    const float h_k = sqrt(norm2) / (2 * largest_norm);
    const bool usable = real && h_k > 1e-30f && h_k < 1e30f;
    double a = 0;
    for (int j = lane; j < d_padded; j += 32) {
        __half linear = __float2half_rn(0), square = linear;
        if (usable && j < d) {
            const double s = scales[j], t = scales[d + j];
            const double mean = (double)means[j] - offset[j];
            const double unit = t * t * 2 * h_k; // of square
            double part;
            const double h = lowered(j, part) / (1 + epsilon);
            square = __float2half_rz(__double2float_rz(h / unit));
            const double less = (double)__half2float(square) * unit;
            if (less > 0) {
                linear = __float2half_rn(2 * less * mean / (s * 2 * h_k));
                const double near =
                        (double)__half2float(linear) * s * h_k / less;
                const double off = near - mean;
                a += less * (gain * off * off - near * near);
            }
        }
        halves[j] = linear;
        halves[d_padded + j] = __hneg(square);
    }
    a = warp_sum(a);
    if (lane == 0) {
        if (usable) {
            a += components[c].log_scale;
            // the last additions of the score
            a += isinf(a) ? 0 : 0x1p-21 * fabs(a);
        }
        columns[c] = !real ? make_float2(-INFINITY, 0)
                : !usable  ? make_float2(INFINITY, 1) // always listed
                           : make_float2(a, h_k);
    }
}

} // namespace

DiagonalMixture::DiagonalMixture(
        int64_t rows,
        int k,
        int d,
        cudaStream_t stream)
        : k_(k),
          d_(d),
          given_((size_t)k * d + k, stream),
          components_(k, stream),
          half_precisions_((size_t)k * d, stream),
          moments_(4 * d, stream),
          scales_(2 * d + 1, stream),
          row_halves_(rows * 2 * padded(d), stream),
          mean_halves_(
                  (size_t)(k + assign_columns) * 2 * padded(d), stream),
          row_slack_(rows, stream),
          columns_(k + assign_columns, stream),
          bounds_(1, stream),
          staging_(((size_t)k * d + k) * sizeof(float)) {
    FAISS_FLASH_CUDA_CHECK(
            cudaMemsetAsync(bounds_.get(), 0, sizeof(ListBounds), stream));
}

size_t DiagonalMixture::bytes(int64_t rows, int k, int d) {
    const size_t halves = 2 * padded(d) * sizeof(__half);
    return rows * (halves + sizeof(float)) +
            (k + assign_columns) * (halves + sizeof(float2)) +
            (size_t)k * (2 * d + 1) * sizeof(float) +
            k * sizeof(ComponentTerms) +
            d * (4 * sizeof(double) + 2 * sizeof(float));
}

void DiagonalMixture::set(const Model& model, cudaStream_t stream) {
    const size_t values = (size_t)k_ * d_;
    float* staged = static_cast<float*>(staging_.get());
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(staged_.get()));
    std::memcpy(staged, model.variances.data(), values * sizeof(float));
    std::memcpy(staged + values, model.weights.data(), k_ * sizeof(float));
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            given_.get(),
            staged,
            (values + k_) * sizeof(float),
            cudaMemcpyHostToDevice,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(staged_.get(), stream));
    diagonal_terms_kernel<<<blocks_for(k_ * 32), threads, 0, stream>>>(
            k_,
            d_,
            given_.get(),
            given_.get() + values,
            components_.get(),
            half_precisions_.get());
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

void DiagonalMixture::prepare(
        const float* means,
        const Shift& shift,
        bool rescale,
        cudaStream_t stream) {
    if (rescale) {
        moments_kernel<<<d_, threads, 0, stream>>>(
                k_,
                d_,
                means,
                shift.offset,
                given_.get(),
                given_.get() + (size_t)k_ * d_,
                moments_.get());
        scales_kernel<<<1, threads, 0, stream>>>(
                d_, moments_.get(), scales_.get());
    }
    const int k_padded = this->means().k_padded;
    diagonal_means_kernel<<<blocks_for(k_padded * 32), threads, 0, stream>>>(
            k_,
            k_padded,
            d_,
            padded(d_),
            means,
            shift.offset,
            half_precisions_.get(),
            components_.get(),
            scales_.get(),
            mean_halves_.get(),
            columns_.get());
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

PreparedCentroids DiagonalMixture::means() const {
    PreparedCentroids means;
    means.k = k_;
    means.k_padded =
            (k_ + assign_columns - 1) / assign_columns * assign_columns;
    means.halves = mean_halves_.get();
    return means;
}

ListTerms DiagonalMixture::terms() const {
    return {columns_.get(), nullptr, bounds_.get()};
}

} // namespace faiss_flash
