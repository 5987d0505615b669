#pragma once

#include <memory>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/// Copies rows of a source to the device through two page-locked blocks, so
/// that reading one block, copying the other and kernels all overlap.
class Uploader {
   public:
    explicit Uploader(const VectorSource& source);

    /// Rows [i0, i0 + count) to x (count, d) and, where the source has
    /// weights, to w (count). Returns when the host memory has been read;
    /// the copies are in `stream`'s order.
    void upload(
            int64_t i0,
            int64_t count,
            float* x,
            float* w,
            cudaStream_t stream);

   private:
    struct Block {
        explicit Block(size_t bytes) : memory(bytes) {}
        PinnedBuffer memory;
        Event copied;
    };
    const VectorSource& source_;
    int64_t block_rows_;
    std::unique_ptr<Block> blocks_[2];
    int next_ = 0;
};

} // namespace faiss_flash
