#include <faiss_flash/cuda/pinned_pool.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace faiss_flash {

namespace {

constexpr size_t most_kept = size_t(128) << 20;

struct Pool {
    std::mutex mutex;
    std::multimap<size_t, std::unique_ptr<PinnedBuffer>> free; ///< by size
    size_t kept = 0;                                           ///< bytes
};

/// Never destroyed: at exit the driver may be gone before.
Pool& pool() {
    static Pool* const shared = new Pool;
    return *shared;
}

} // namespace

PooledBuffer::PooledBuffer(size_t bytes) : bytes_(std::max<size_t>(bytes, 1)) {
    Pool& p = pool();
    {
        const std::lock_guard<std::mutex> lock(p.mutex);
        // the smallest one that fits, unless it would be mostly wasted
        const auto found = p.free.lower_bound(bytes_);
        if (found != p.free.end() && found->first / 8 <= bytes_) {
            bytes_ = found->first;
            memory_ = std::move(found->second);
            p.kept -= bytes_;
            p.free.erase(found);
        }
    }
    if (!memory_) {
        memory_ = std::make_unique<PinnedBuffer>(bytes_);
    }
}

PooledBuffer::~PooledBuffer() {
    Pool& p = pool();
    const std::lock_guard<std::mutex> lock(p.mutex);
    if (p.kept + bytes_ <= most_kept) {
        p.kept += bytes_;
        p.free.emplace(bytes_, std::move(memory_));
    }
}

} // namespace faiss_flash
