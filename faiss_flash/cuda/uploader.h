#pragma once

#include <memory>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/// Copies rows of a source to the device through page-locked blocks, so that
/// reading one block, copying others and kernels all overlap.
class Uploader {
   public:
    explicit Uploader(const VectorSource& source);

    /// Rows [i0, i0 + count) to x (count, d). Returns when the host memory
    /// has been read; the copies are in `stream`'s order.
    void upload_vectors(
            int64_t i0,
            int64_t count,
            float* x,
            cudaStream_t stream);
    /// Their weights, which the source has, to w (count).
    void upload_weights(
            int64_t i0,
            int64_t count,
            float* w,
            cudaStream_t stream);

   private:
    struct Block {
        explicit Block(size_t bytes) : memory(bytes) {}
        PooledBuffer memory;
        Event copied;
    };
    /// The blocks in turn: fill(block memory, first, count) and then copy
    /// `count` items of `size` bytes to `to`.
    template <class Fill>
    void upload(
            int64_t count,
            size_t size,
            void* to,
            cudaStream_t stream,
            Fill&& fill);

    const VectorSource& source_;
    const size_t block_bytes_;
    static constexpr int most_blocks = 3;
    std::unique_ptr<Block> blocks_[most_blocks]; ///< made when first needed
    int next_ = 0;
};

} // namespace faiss_flash
