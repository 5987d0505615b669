#include <cuda_runtime.h>

#include <algorithm>
#include <cinttypes>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/device_source.h>
#include <faiss_flash/cuda/prepare.cuh>
#include <faiss_flash/cuda/rows_view.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int blocks = 2048;

/// `first` becomes the smallest number of a row that is not finite.
template <class T>
__global__ void find_not_finite_kernel(
        int64_t count,
        int d,
        const T* x,
        unsigned long long* first) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        if (!isfinite(to_float(x[i]))) {
            atomicMin(first, (unsigned long long)(i / d));
        }
    }
}

template <class T>
__global__ void gather_kernel(
        int64_t n,
        int d,
        const T* x,
        const int64_t* rows,
        T* to) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * d;
         i += (int64_t)gridDim.x * blockDim.x) {
        to[i] = x[rows[i / d] * d + i % d];
    }
}

class DeviceSource : public VectorSource {
   public:
    DeviceSource(
            size_t n,
            size_t d,
            const DeviceVectors& x,
            cudaStream_t stream,
            const float* weights)
            : VectorSource(n, d),
              x_(x),
              stream_(stream),
              weights_(weights) {}

    /// Gathered rows, which it owns; they are there when this returns.
    DeviceSource(
            const DeviceSource& all,
            const std::vector<int64_t>& rows,
            cudaStream_t stream)
            : VectorSource(rows.size(), all.d()),
              stream_(stream),
              own_(rows.size() * all.d() * size_of(all.x_.type), stream) {
        x_ = {own_.get(), all.x_.type};
        DeviceArray<int64_t> numbers(rows.size(), stream);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                numbers.get(),
                rows.data(),
                rows.size() * sizeof(int64_t),
                cudaMemcpyHostToDevice,
                stream));
        with_type(all.x_, [&](auto* from) {
            using Stored = std::remove_pointer_t<decltype(from)>;
            using T = std::remove_const_t<Stored>;
            gather_kernel<<<blocks, threads, 0, stream>>>(
                    n(),
                    d(),
                    from,
                    numbers.get(),
                    reinterpret_cast<T*>(own_.get()));
        });
        FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
        if (all.weights_) {
            own_weights_.resize(rows.size());
            for (size_t i = 0; i < rows.size(); i++) {
                own_weights_[i] = all.weights_[rows[i]];
            }
            weights_ = own_weights_.data();
        }
    }

    const float* rows(size_t i0, size_t count, std::vector<float>& buffer)
            const override {
        buffer.resize(count * d());
        DeviceArray<float> floats(buffer.size(), stream_);
        FAISS_FLASH_CUDA_CHECK(launch_to_floats(
                buffer.size(), x_.plus(i0 * d()), floats.get(), stream_));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                buffer.data(),
                floats.get(),
                buffer.size() * sizeof(float),
                cudaMemcpyDeviceToHost,
                stream_));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream_));
        return buffer.data();
    }
    void gather(const int64_t* numbers, size_t count, float* to)
            const override {
        const DeviceSource some(
                *this, std::vector<int64_t>(numbers, numbers + count), stream_);
        std::vector<float> buffer;
        const float* floats = some.rows(0, count, buffer);
        std::copy_n(floats, count * d(), to);
    }
    const float* weights(size_t i0, size_t, std::vector<float>&)
            const override {
        return weights_ ? weights_ + i0 : nullptr;
    }
    DeviceVectors on_device() const override {
        return x_;
    }

   private:
    DeviceVectors x_;
    cudaStream_t stream_;
    const float* weights_ = nullptr;
    DeviceArray<uint8_t> own_;
    std::vector<float> own_weights_;
};

} // namespace

void check_device_pointer(
        const char* name,
        const char* argument,
        const void* data) {
    int device = 0;
    FAISS_FLASH_CUDA_CHECK(cudaGetDevice(&device));
    cudaPointerAttributes at;
    FAISS_FLASH_CUDA_CHECK(cudaPointerGetAttributes(&at, data));
    FAISS_THROW_IF_NOT_FMT(
            at.type == cudaMemoryTypeManaged ||
                    (at.type == cudaMemoryTypeDevice && at.device == device),
            "%s: %s = %p should be memory of CUDA device %d, the current one",
            name,
            argument,
            data,
            device);
}

std::unique_ptr<VectorSource> device_source(
        const char* name,
        size_t n,
        size_t d,
        const DeviceVectors& x,
        void* stream,
        const float* weights) {
    check_device_pointer(name, "x", x.data);
    const auto s = static_cast<cudaStream_t>(stream);
    DeviceArray<unsigned long long> first(1, s);
    FAISS_FLASH_CUDA_CHECK(
            cudaMemsetAsync(first.get(), 0xff, sizeof(*first.get()), s));
    with_type(x, [&](auto* vectors) {
        find_not_finite_kernel<<<blocks, threads, 0, s>>>(
                n * d, d, vectors, first.get());
    });
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
    unsigned long long bad = 0;
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            &bad, first.get(), sizeof(bad), cudaMemcpyDeviceToHost, s));
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(s));
    FAISS_THROW_IF_NOT_FMT(
            bad >= n,
            "%s: vector %" PRIu64 " contains NaN or infinite values",
            name,
            (uint64_t)bad);
    return std::make_unique<DeviceSource>(n, d, x, s, weights);
}

std::unique_ptr<VectorSource> device_subset(
        const VectorSource& source,
        const std::vector<int64_t>& rows,
        void* stream) {
    return std::make_unique<DeviceSource>(
            dynamic_cast<const DeviceSource&>(source),
            rows,
            static_cast<cudaStream_t>(stream));
}

} // namespace faiss_flash
