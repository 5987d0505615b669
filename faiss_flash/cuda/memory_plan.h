#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace faiss_flash {

/// How a training set is cut to fit a device.
struct MemoryPlan {
    int64_t chunk_rows = 0; ///< rows worked on at once
    int64_t chunks = 0;
    bool resident = false; ///< all rows stay on the device between passes
    size_t bytes = 0;      ///< device memory this takes
};

/** The fewest chunks that fit `budget` bytes.
 *
 * Chunks are whole numbers of `block_rows` (so that results do not depend on
 * them), except that the last one ends with the data.
 *
 * @param resident_bytes  device bytes when all rows stay
 * @param streamed_bytes  device bytes when chunks of so many rows pass
 *                        through
 * Throws a FaissException that says what the smallest chunk would need if
 * even that does not fit.
 */
MemoryPlan plan_memory(
        int64_t n,
        int64_t block_rows,
        size_t budget,
        size_t resident_bytes,
        const std::function<size_t(int64_t rows)>& streamed_bytes);

} // namespace faiss_flash
