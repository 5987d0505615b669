#pragma once

// Host-side handles of the CUDA runtime: errors as exceptions, memory and
// events that free themselves.

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// A CUDA call failed for want of device memory; work may be retried in
/// smaller chunks.
class OutOfDeviceMemory : public faiss::FaissException {
   public:
    using faiss::FaissException::FaissException;
};

/// Throws with the call and CUDA's message; clears the error, so that the
/// context stays usable where CUDA says it is.
void check_cuda(cudaError_t error, const char* call);

#define FAISS_FLASH_CUDA_CHECK(call) ::faiss_flash::check_cuda((call), #call)

/// Memory from the stream-ordered allocator; throws OutOfDeviceMemory.
void* allocate_device(size_t bytes, cudaStream_t stream);

/// For tests: the n-th allocation from now on, on the device or page-locked,
/// fails as if memory had run out (1: the next one), and those after it
/// succeed again; 0: none fails. Returns how many were still to come before
/// the failure that was asked for last; 0 if it has been.
int fail_device_allocation(int n);

/// Device memory of one stream.
template <class T>
class DeviceArray {
   public:
    DeviceArray() = default;
    DeviceArray(size_t count, cudaStream_t stream) : stream_(stream) {
        if (count > 0) {
            data_ = static_cast<T*>(allocate_device(count * sizeof(T), stream));
        }
    }
    DeviceArray(DeviceArray&& other) noexcept {
        swap(other);
    }
    DeviceArray& operator=(DeviceArray&& other) noexcept {
        swap(other);
        return *this;
    }
    ~DeviceArray() {
        if (data_) {
            cudaFreeAsync(data_, stream_);
        }
    }
    T* get() const {
        return data_;
    }

   private:
    void swap(DeviceArray& other) {
        std::swap(data_, other.data_);
        std::swap(stream_, other.stream_);
    }
    T* data_ = nullptr;
    cudaStream_t stream_ = nullptr;
};

/// Page-locked host memory: copies from it overlap with kernels. Throws
/// OutOfDeviceMemory.
class PinnedBuffer {
   public:
    explicit PinnedBuffer(size_t bytes);
    PinnedBuffer(const PinnedBuffer&) = delete;
    ~PinnedBuffer();
    void* get() const {
        return data_;
    }

   private:
    void* data_ = nullptr;
};

class Event {
   public:
    Event();
    Event(const Event&) = delete;
    ~Event();
    cudaEvent_t get() const {
        return event_;
    }

   private:
    cudaEvent_t event_ = nullptr;
};

/// The caller's stream, or one of our own.
class Stream {
   public:
    explicit Stream(cudaStream_t given = nullptr);
    Stream(const Stream&) = delete;
    ~Stream();
    cudaStream_t get() const {
        return stream_;
    }

   private:
    cudaStream_t stream_ = nullptr;
    bool own_ = false;
};

/// What the engine needs to know of the current device.
struct DeviceInfo {
    int multiprocessors = 0;
    int capability = 0; ///< 10·major + minor
    size_t free_bytes = 0;
};

DeviceInfo device_info();

} // namespace faiss_flash
