#pragma once

// Rows that too many components share for a list: all components, as
// matrices. This is the way of difference form, on the ordinary arithmetic
// units; dense_products.cuh has the other one.

#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

/// Places [first, first + count) of a list of dense rows; never from two
/// blocks of rows.
struct DensePiece {
    uint32_t first, count;
};

constexpr int dense_piece_rows = 4096; ///< at most

/// Scratch of a batch; all on the device.
struct DenseScratch {
    float* dist;         ///< (rows, k)
    float* shares;       ///< r·w, (rows, k)
    DensePiece* pieces;  ///< (pieces)
    double* partial;     ///< (pieces, k, d), and if diagonal Σ r w (x − μ)²
    double* scalars;     ///< Σ r w and Σ r w dist, (pieces, 2, k)
};

/** Exact densities of `rows` rows against all components: distances in
 * difference form, log densities in double, shares r·w.
 * @param numbers  (rows) of the rows, on the device
 */
cudaError_t launch_dense_shares(
        const MixtureRowsInput& in,
        int64_t rows,
        const uint32_t* numbers,
        const MixtureRowsOutput& out,
        const DenseScratch& scratch,
        cudaStream_t stream);

/** The statistics of those rows: sums over each piece in single precision
 * (128 rows) and then in double, pieces added to `out` in order.
 * @param numbers  rows by the places of pieces
 * @param first    the place that the scratch begins with
 */
cudaError_t launch_dense_sums(
        const MixtureRowsInput& in,
        int pieces,
        uint32_t first,
        const uint32_t* numbers,
        const DenseScratch& scratch,
        const DeviceStatistics& out,
        cudaStream_t stream);

} // namespace faiss_flash
