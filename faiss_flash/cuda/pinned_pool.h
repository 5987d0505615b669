#pragma once

#include <cstddef>
#include <memory>

#include <faiss_flash/cuda/device.h>

namespace faiss_flash {

/** Page-locked host memory that is used again: locking pages takes longer
 * than copying what they hold. What is given back stays with the process, up
 * to 160 MiB in all.
 */
class PooledBuffer {
   public:
    explicit PooledBuffer(size_t bytes);
    PooledBuffer(const PooledBuffer&) = delete;
    /// Nobody may be copying from or to it any more.
    ~PooledBuffer();
    void* get() const {
        return memory_->get();
    }

   private:
    std::unique_ptr<PinnedBuffer> memory_;
    size_t bytes_; ///< of the memory, at least those asked for
};

} // namespace faiss_flash
