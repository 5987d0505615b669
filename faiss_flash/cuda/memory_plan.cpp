#include <faiss_flash/cuda/memory_plan.h>

#include <algorithm>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

MemoryPlan plan_memory(
        int64_t n,
        int64_t block_rows,
        size_t budget,
        size_t resident_bytes,
        const std::function<size_t(int64_t rows)>& streamed_bytes) {
    if (resident_bytes <= budget) {
        return {n, 1, true, resident_bytes};
    }
    // bytes grow with rows: the largest number of blocks that fits
    int64_t fits = 0, too_many = (n + block_rows - 1) / block_rows + 1;
    while (too_many - fits > 1) {
        const int64_t middle = (fits + too_many) / 2;
        if (streamed_bytes(std::min(n, middle * block_rows)) <= budget) {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    FAISS_THROW_IF_NOT_FMT(
            fits > 0,
            "max_device_bytes = %zd is too small: the smallest chunk, %zd "
            "vectors, needs %zd bytes on the device",
            budget,
            (size_t)std::min(n, block_rows),
            streamed_bytes(std::min(n, block_rows)));
    const int64_t rows = std::min(n, fits * block_rows);
    return {rows, (n + rows - 1) / rows, false, streamed_bytes(rows)};
}

} // namespace faiss_flash
