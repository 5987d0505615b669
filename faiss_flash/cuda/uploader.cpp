#include <faiss_flash/cuda/uploader.h>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

namespace faiss_flash {

namespace {

/// memcpy that does not read `to`, which nobody will, into the caches:
/// memory traffic is what bounds a copy by all cores. `to` is aligned.
void copy_past_caches(uint8_t* to, const uint8_t* from, size_t bytes) {
    namespace hn = hwy::HWY_NAMESPACE;
    const hn::ScalableTag<uint8_t> lanes;
    size_t i = 0;
    for (; i + hn::Lanes(lanes) <= bytes; i += hn::Lanes(lanes)) {
        hn::Stream(hn::LoadU(lanes, from + i), lanes, to + i);
    }
    hwy::FlushStream();
    memcpy(to + i, from + i, bytes - i);
}

/// More than one core is needed to keep up with PCIe.
void parallel_copy(void* to, const void* from, size_t bytes) {
    const int64_t piece = 1 << 20;
    const int64_t pieces = (bytes + piece - 1) / piece;
#pragma omp parallel for schedule(static) if (pieces > 4)
    for (int64_t i = 0; i < pieces; i++) {
        const size_t at = i * piece;
        copy_past_caches(
                static_cast<uint8_t*>(to) + at,
                static_cast<const uint8_t*>(from) + at,
                std::min<size_t>(piece, bytes - at));
    }
}

constexpr size_t most_block_bytes = size_t(32) << 20;

} // namespace

Uploader::Uploader(const VectorSource& source)
        : source_(source),
          // page-locking takes longer than to copy what fits in
          block_bytes_(std::max(
                  source.d() * sizeof(float),
                  std::min(
                          most_block_bytes,
                          source.n() * source.d() * sizeof(float)))) {}

template <class Fill>
void Uploader::upload(
        int64_t count,
        size_t size,
        void* to,
        cudaStream_t stream,
        Fill&& fill) {
    const int64_t most = std::max<int64_t>(block_bytes_ / size, 1);
    for (int64_t done = 0; done < count; done += most) {
        const int64_t items = std::min(most, count - done);
        std::unique_ptr<Block>& block = blocks_[next_];
        next_ = (next_ + 1) % most_blocks;
        if (!block) {
            block = std::make_unique<Block>(block_bytes_);
        }
        FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(block->copied.get()));
        fill(block->memory.get(), done, items);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                static_cast<char*>(to) + done * size,
                block->memory.get(),
                items * size,
                cudaMemcpyHostToDevice,
                stream));
        FAISS_FLASH_CUDA_CHECK(cudaEventRecord(block->copied.get(), stream));
    }
}

void Uploader::upload_vectors(
        int64_t i0,
        int64_t count,
        float* x,
        cudaStream_t stream) {
    const size_t size = source_.d() * sizeof(float);
    std::vector<float> buffer;
    upload(count, size, x, stream, [&](void* to, int64_t first, int64_t rows) {
        parallel_copy(to, source_.rows(i0 + first, rows, buffer), rows * size);
    });
}

void Uploader::upload_weights(
        int64_t i0,
        int64_t count,
        float* w,
        cudaStream_t stream) {
    const size_t size = sizeof(float);
    std::vector<float> buffer;
    upload(count, size, w, stream, [&](void* to, int64_t first, int64_t rows) {
        parallel_copy(
                to, source_.weights(i0 + first, rows, buffer), rows * size);
    });
}

} // namespace faiss_flash
