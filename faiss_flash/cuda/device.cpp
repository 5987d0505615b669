#include <faiss_flash/cuda/device.h>

#include <atomic>
#include <string>

namespace faiss_flash {

void check_cuda(cudaError_t error, const char* call) {
    if (error == cudaSuccess) {
        return;
    }
    cudaGetLastError(); // an error that is not sticky is not seen again
    const std::string message =
            std::string(call) + ": " + cudaGetErrorString(error);
    if (error == cudaErrorMemoryAllocation) {
        throw OutOfDeviceMemory(message);
    }
    throw faiss::FaissException(message);
}

namespace {

std::atomic<int> allocations_to_failure{0};

/// The memory that take(&data) gives, unless this one is to fail.
template <class Allocate>
void* allocate(const char* call, size_t bytes, Allocate&& take) {
    void* data = nullptr;
    const bool fail = allocations_to_failure > 0 &&
            allocations_to_failure.fetch_sub(1) == 1;
    const cudaError_t error = fail ? cudaErrorMemoryAllocation : take(&data);
    const std::string message =
            std::string(call) + " of " + std::to_string(bytes) + " bytes";
    check_cuda(error, message.c_str());
    return data;
}

} // namespace

int fail_device_allocation(int n) {
    return allocations_to_failure.exchange(n);
}

void* allocate_device(size_t bytes, cudaStream_t stream) {
    return allocate("cudaMallocAsync", bytes, [&](void** data) {
        return cudaMallocAsync(data, bytes, stream);
    });
}

PinnedBuffer::PinnedBuffer(size_t bytes)
        : data_(allocate("cudaMallocHost", bytes, [&](void** data) {
              return cudaMallocHost(data, bytes);
          })) {}

PinnedBuffer::~PinnedBuffer() {
    cudaFreeHost(data_);
}

Event::Event() {
    FAISS_FLASH_CUDA_CHECK(
            cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
}

Event::~Event() {
    cudaEventDestroy(event_);
}

Stream::Stream(cudaStream_t given) : stream_(given), own_(!given) {
    if (own_) {
        FAISS_FLASH_CUDA_CHECK(
                cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    }
}

Stream::~Stream() {
    if (own_) {
        cudaStreamDestroy(stream_);
    }
}

DeviceInfo device_info() {
    int device = 0, major = 0, minor = 0;
    DeviceInfo info;
    FAISS_FLASH_CUDA_CHECK(cudaGetDevice(&device));
    FAISS_FLASH_CUDA_CHECK(cudaDeviceGetAttribute(
            &info.multiprocessors, cudaDevAttrMultiProcessorCount, device));
    FAISS_FLASH_CUDA_CHECK(cudaDeviceGetAttribute(
            &major, cudaDevAttrComputeCapabilityMajor, device));
    FAISS_FLASH_CUDA_CHECK(cudaDeviceGetAttribute(
            &minor, cudaDevAttrComputeCapabilityMinor, device));
    info.capability = 10 * major + minor;
    size_t total = 0;
    FAISS_FLASH_CUDA_CHECK(cudaMemGetInfo(&info.free_bytes, &total));
    return info;
}

} // namespace faiss_flash
