#include <faiss_flash/cuda/uploader.h>

#include <algorithm>
#include <cstring>

namespace faiss_flash {

namespace {

/// More than one core is needed to keep up with PCIe.
void parallel_copy(void* to, const void* from, size_t bytes) {
    const int64_t piece = 1 << 20;
    const int64_t pieces = (bytes + piece - 1) / piece;
#pragma omp parallel for schedule(static) if (pieces > 4)
    for (int64_t i = 0; i < pieces; i++) {
        const size_t at = i * piece;
        memcpy(static_cast<char*>(to) + at,
               static_cast<const char*>(from) + at,
               std::min<size_t>(piece, bytes - at));
    }
}

} // namespace

Uploader::Uploader(const VectorSource& source) : source_(source) {
    const size_t row_bytes = (source.d() + 1) * sizeof(float);
    const size_t block_bytes = size_t(32) << 20;
    block_rows_ = std::clamp<int64_t>(
            block_bytes / row_bytes, 1, std::max<int64_t>(source.n(), 1));
    for (auto& block : blocks_) {
        block = std::make_unique<Block>(block_rows_ * row_bytes);
    }
}

void Uploader::upload(
        int64_t i0,
        int64_t count,
        float* x,
        float* w,
        cudaStream_t stream) {
    const size_t d = source_.d();
    std::vector<float> x_buffer, w_buffer;
    for (int64_t done = 0; done < count; done += block_rows_) {
        const int64_t rows = std::min(block_rows_, count - done);
        Block& block = *blocks_[next_];
        next_ ^= 1;
        FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(block.copied.get()));
        const float* from = source_.rows(i0 + done, rows, x_buffer);
        float* staged = static_cast<float*>(block.memory.get());
        parallel_copy(staged, from, rows * d * sizeof(float));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                x + done * d,
                staged,
                rows * d * sizeof(float),
                cudaMemcpyHostToDevice,
                stream));
        const float* weights = source_.weights(i0 + done, rows, w_buffer);
        if (weights) {
            float* staged_weights = staged + rows * d;
            memcpy(staged_weights, weights, rows * sizeof(float));
            FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                    w + done,
                    staged_weights,
                    rows * sizeof(float),
                    cudaMemcpyHostToDevice,
                    stream));
        }
        FAISS_FLASH_CUDA_CHECK(cudaEventRecord(block.copied.get(), stream));
    }
}

} // namespace faiss_flash
