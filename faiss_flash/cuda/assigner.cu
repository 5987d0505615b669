#include <algorithm>
#include <cmath>
#include <cstring>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/assigner.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace {

int round_up(int value, int to) {
    return (value + to - 1) / to * to;
}

/// Rows of halves start on 16-byte boundaries.
int padded_dimension(int d) {
    return round_up(d, 8);
}

int padded_centroids(int k) {
    return round_up(k, assign_columns);
}

/// The largest |mean − offset|. Dimension by dimension: the compiler can use
/// vector registers then.
float largest_mean(const Model& model, const std::vector<float>& offset) {
    const size_t d = model.d;
    std::vector<float> largest(d);
    for (size_t c = 0; c < model.k; c++) {
        const float* mean = model.means.data() + c * d;
        for (size_t j = 0; j < d; j++) {
            const float value = std::abs(mean[j] - offset[j]);
            largest[j] = largest[j] < value ? value : largest[j];
        }
    }
    return *std::max_element(largest.begin(), largest.end());
}

} // namespace

AssignKernel choose_assign_kernel(int capability, int d_padded) {
    if (capability != 90) {
        return AssignKernel::sm80;
    }
    return d_padded <= assign_sm90_max_d ? AssignKernel::sm90
                                         : AssignKernel::sm90_deep;
}

HostShift choose_shift(const Model& model) {
    const size_t d = model.d;
    HostShift shift;
    shift.offset.assign(d, 0);
    float largest = largest_mean(model, shift.offset);
    if (largest == 0 || !std::isfinite(largest)) {
        return shift;
    }
    if (model.metric == Metric::l2) {
        // a multiple of this grid: 8-bit integers stay exact when shifted
        const double grid = std::exp2(std::floor(std::log2(largest)) - 7);
        std::vector<double> sums(d);
        for (size_t c = 0; c < model.k; c++) {
            for (size_t j = 0; j < d; j++) {
                sums[j] += model.means[c * d + j];
            }
        }
        for (size_t j = 0; j < d; j++) {
            shift.offset[j] = std::round(sums[j] / model.k / grid) * grid;
        }
        const float spread = largest_mean(model, shift.offset);
        largest = spread > 0 ? spread : largest;
    }
    // centroids up to 2⁹: vectors 128 times as large still fit, and what is
    // lost to fp16's smallest numbers is 2⁻³³ of the largest coordinate
    shift.scale = std::exp2(9 - std::ceil(std::log2(largest)));
    return shift;
}

DeviceCentroids::DeviceCentroids(
        int k,
        int d,
        const HostShift& shift,
        cudaStream_t stream)
        : k_(k),
          d_(d),
          d_padded_(padded_dimension(d)),
          k_padded_(padded_centroids(k)),
          scale_(shift.scale),
          offset_(d, stream),
          means_((size_t)k * d, stream),
          alpha_(k_padded_, stream),
          norm_(k_padded_, stream),
          error_(k_padded_, stream),
          norm2_(k_padded_, stream),
          terms_(1, stream),
          halves_((size_t)k_padded_ * d_padded_, stream),
          staging_((size_t)k * d * sizeof(float)) {
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            offset_.get(),
            shift.offset.data(),
            d * sizeof(float),
            cudaMemcpyHostToDevice,
            stream));
}

DeviceCentroids::~DeviceCentroids() {
    cudaEventSynchronize(staged_.get()); // staging_ has been read
}

void DeviceCentroids::set(const Model& model, cudaStream_t stream) {
    l2_ = model.metric == Metric::l2;
    const size_t bytes = model.means.size() * sizeof(float);
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(staged_.get()));
    std::memcpy(staging_.get(), model.means.data(), bytes);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            means_.get(),
            staging_.get(),
            bytes,
            cudaMemcpyHostToDevice,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(staged_.get(), stream));
    prepare(stream);
}

void DeviceCentroids::prepare(cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(launch_prepare_centroids(
            k_,
            k_padded_,
            d_,
            d_padded_,
            means_.get(),
            shift(),
            halves_.get(),
            norm_.get(),
            error_.get(),
            norm2_.get(),
            stream));
}

PreparedCentroids DeviceCentroids::prepared_for(
        const TypicalRow* typical,
        cudaStream_t stream) const {
    PreparedCentroids p;
    p.k = k_;
    p.k_padded = k_padded_;
    p.halves = halves_.get();
    p.alpha = alpha_.get();
    p.norm = norm_.get();
    p.error = error_.get();
    p.l2 = l2_;
    p.terms = terms_.get();
    FAISS_FLASH_CUDA_CHECK(launch_alpha(
            k_,
            k_padded_,
            d_,
            p.l2,
            typical,
            p.norm,
            p.error,
            norm2_.get(),
            alpha_.get(),
            terms_.get(),
            stream));
    return p;
}

size_t DeviceCentroids::bytes(int k, int d) {
    const size_t rows = padded_centroids(k);
    return d * sizeof(float) + (size_t)k * d * sizeof(float) +
            rows * (4 * sizeof(float) + padded_dimension(d) * sizeof(__half));
}

DeviceRows::DeviceRows(int64_t capacity, int d, cudaStream_t stream)
        : d_(d),
          d_padded_(padded_dimension(d)),
          halves_(capacity * d_padded_, stream),
          norm_(capacity, stream),
          error_(capacity, stream),
          threshold_(capacity, stream),
          labels_(capacity, stream),
          unproved_(capacity, stream),
          counts_(capacity, stream),
          candidates_(capacity * recheck_capacity, stream),
          typical_(1, stream),
          scratch_(prepare_scratch_bytes, stream) {
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            counts_.get(), 0, capacity * sizeof(uint32_t), stream));
}

size_t DeviceRows::bytes(int64_t capacity, int d) {
    return capacity *
            (padded_dimension(d) * sizeof(__half) + 3 * sizeof(float) +
             (3 + recheck_capacity) * sizeof(uint32_t));
}

void DeviceRows::prepare(
        int64_t n,
        const DeviceVectors& x,
        const Shift& shift,
        cudaStream_t stream) {
    n_ = n;
    x_ = x;
    FAISS_FLASH_CUDA_CHECK(launch_prepare_rows(
            n,
            d_,
            d_padded_,
            x,
            shift,
            halves_.get(),
            norm_.get(),
            error_.get(),
            typical_.get(),
            scratch_.get(),
            stream));
}

PreparedRows DeviceRows::prepared() const {
    PreparedRows p;
    p.n = n_;
    p.d = d_;
    p.d_padded = d_padded_;
    p.halves = halves_.get();
    p.norm = norm_.get();
    p.error = error_.get();
    p.typical = typical_.get();
    return p;
}

AssignOutput DeviceRows::assign_unchecked(
        const PreparedCentroids& c,
        uint32_t* n_unproved,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const PreparedRows rows = prepared();
    AssignOutput out;
    out.labels = labels_.get();
    out.threshold = threshold_.get();
    out.unproved = unproved_.get();
    out.n_unproved = n_unproved;
    FAISS_FLASH_CUDA_CHECK(
            cudaMemsetAsync(out.n_unproved, 0, sizeof(uint32_t), stream));
    const AssignKernel kernel =
            choose_assign_kernel(device.capability, d_padded_);
    if (kernel == AssignKernel::sm80) {
        FAISS_FLASH_CUDA_CHECK(launch_assign_sm80(rows, c, out, stream));
    } else {
        const auto launch = kernel == AssignKernel::sm90
                ? launch_assign_sm90
                : launch_assign_sm90_deep;
        FAISS_FLASH_CUDA_CHECK(launch(
                tensor_map(rows.halves, n_, d_padded_, assign_sm90_box_rows),
                tensor_map(
                        c.halves,
                        c.k_padded,
                        d_padded_,
                        assign_sm90_box_columns),
                rows,
                c,
                out,
                device.multiprocessors,
                stream));
    }
    return out;
}

void DeviceRows::assign(
        const DeviceCentroids& centroids,
        uint32_t* n_unproved,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const PreparedCentroids prepared_centroids =
            centroids.prepared_for(typical_.get(), stream);
    const AssignOutput out =
            assign_unchecked(prepared_centroids, n_unproved, device, stream);
    FAISS_FLASH_CUDA_CHECK(launch_recheck(
            prepared(),
            prepared_centroids,
            out,
            x_,
            centroids.means(),
            {counts_.get(), candidates_.get()},
            device.multiprocessors,
            stream));
}

} // namespace faiss_flash
