#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_flash {

/** How a soft pass cuts its work; known to the host alone.
 *
 * Results depend on k, d and the data only, not on the memory there is:
 * - sums are over blocks of block_rows rows (quarters of a block whose rows
 *   have more than block_entries entries), combined in order;
 * - sums over dense rows are over pieces of piece_rows of a block's dense
 *   rows, combined in order.
 * Memory decides how many rows are listed at once, how many entries are
 * sorted at once, and how many pieces are in work at once.
 */
struct MixturePlan {
    int k = 0, d = 0;
    int64_t block_rows = 0;
    int64_t piece_rows = 0;

    int64_t rows = 0;    ///< listed at once: whole blocks, or all there are
    int64_t entries = 0; ///< summed at once, at least block_entries()
    int pieces = 0;      ///< of dense rows at once

    int64_t block_entries() const {
        return 16 * block_rows;
    }
    int64_t k_padded() const {
        return (k + 127) / 128 * 128;
    }
    int64_t d_padded() const {
        return (d + 7) / 8 * 8;
    }
    int64_t dense_rows() const {
        return piece_rows * pieces;
    }
    /// Scratch for distances and sums of `entries`.
    size_t scratch_bytes() const;
    /// Device memory of a pass with this plan.
    size_t bytes() const;
};

/** The fastest plan within `budget` bytes for chunks of up to n rows.
 * Where even the smallest one does not fit, that one is returned: compare
 * its bytes().
 */
MixturePlan plan_mixture(int64_t n, int k, int d, size_t budget);

/// What the smallest plan takes.
size_t least_mixture_bytes(int64_t n, int k, int d);

} // namespace faiss_flash
