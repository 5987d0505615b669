#include <faiss_flash/cuda/pinned_pool.h>

#include <algorithm>
#include <list>
#include <mutex>

namespace faiss_flash {

namespace {

constexpr size_t most_kept = size_t(160) << 20;

struct Kept {
    size_t bytes;
    std::unique_ptr<PinnedBuffer> memory;
};

struct Pool {
    std::mutex mutex;
    std::list<Kept> free; ///< what came back last comes last
    size_t bytes = 0;     ///< of all that is free
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
        // large enough, and less than half of it wasted
        const auto found = std::find_if(
                p.free.begin(), p.free.end(), [&](const Kept& kept) {
                    return kept.bytes >= bytes_ && kept.bytes / 2 <= bytes_;
                });
        if (found != p.free.end()) {
            bytes_ = found->bytes;
            memory_ = std::move(found->memory);
            p.bytes -= bytes_;
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
    p.bytes += bytes_;
    p.free.push_back({bytes_, std::move(memory_)});
    while (p.bytes > most_kept) {
        p.bytes -= p.free.front().bytes;
        p.free.pop_front();
    }
}

} // namespace faiss_flash
