#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_flash {

/** How a soft pass cuts its work; known to the host alone.
 *
 * Results depend on k, d and the data only, not on the memory there is:
 * - sums are over tiles of a block of block_rows rows, combined in order, and
 *   then over blocks in order;
 * - sums over dense rows are over pieces of piece_rows of a block's dense
 *   rows, combined in order.
 * Memory decides how many rows are worked on at once, how many of a tile's
 * sums are written down at once (see TileItems), and how many pieces are in
 * work at once.
 */
struct MixturePlan {
    int k = 0, d = 0;
    bool diagonal = false; ///< covariances
    int64_t block_rows = 0;
    int64_t piece_rows = 0;
    int wide_rows = 0; ///< of a block at most; with more, they are dense

    int64_t rows = 0; ///< at once: whole blocks, or all there are
    int pieces = 0;   ///< of dense rows at once

    int64_t k_padded() const {
        return (k + 127) / 128 * 128;
    }
    int64_t d_padded() const {
        return (d + 7) / 8 * 8;
    }
    int64_t dense_rows() const {
        return piece_rows * pieces;
    }
    int64_t blocks() const {
        return (rows + block_rows - 1) / block_rows;
    }
    int64_t tiles() const;
    int mask_words() const {
        return k_padded() / 32;
    }
    /// Of all tiles together.
    int64_t items() const;
    int64_t vectors() const;
    int vector_stride() const {
        return (d + 3) / 4 * (diagonal ? 8 : 4);
    }
    /// Sums of a dense piece: of x, and of squares.
    size_t piece_sums() const {
        return (size_t)pieces * k * d * (diagonal ? 2 : 1);
    }
    /// Device memory of a pass with this plan.
    size_t bytes() const;
};

/** The fastest plan within `budget` bytes for chunks of up to n rows.
 * Where even the smallest one does not fit, that one is returned: compare
 * its bytes().
 */
MixturePlan plan_mixture(
        int64_t n,
        int k,
        int d,
        size_t budget,
        bool diagonal = false);

/// What the smallest plan takes.
size_t least_mixture_bytes(int64_t n, int k, int d, bool diagonal = false);

} // namespace faiss_flash
