#pragma once

// Many dense rows at once, with matrix products of halves: values are split
// in two halves each, three of the four products are summed (the fourth is
// below single precision).
//
// Components for which that would not be exact enough are left out of the
// products; every row has its distance from those in difference form.

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/mixture/dense.cuh>

namespace faiss_flash {

/// Most components: shares below 2⁻³⁴ vanish, which stays below
/// mixture_drop / 4 together.
constexpr int dense_products_max_k = 1 << 12;
constexpr float dense_least_share = 0x1p-34f;
/// A block of rows with fewer dense ones is not worth it.
constexpr int dense_products_min_rows = 1024;
/// Largest error of a log density, in nats, that the products may have by
/// their bound, which takes every step of every sum to lose as much as one
/// can, in the same direction; measured errors are below 10⁻⁴.
constexpr double dense_products_error = 2e-2;
/// Shares are halves of this many times their value.
constexpr float dense_share_scale = 1024;
/** Diagonal mixtures: Σ r (x' − μ')² is made from Σ r x'², Σ r x' and Σ r.
 * Each is off by at most 6·10⁻⁶ of the sum of its terms' absolute values:
 * truncation over 128 rows of three products in steps of 16, 24·1.06·2⁻²³;
 * 22 bits of operands; 32 sums of 128 rows in single precision, 32·2⁻²⁴. So
 * the difference is off by at most four times that of N (σ² + μ'²), and this
 * many times σ² keeps it within 10⁻⁴.
 */
constexpr double dense_most_spread = 4;

/// What of a mixture goes through products; on the device.
struct DenseChoice {
    float largest_norm; ///< of rows that all of it is exact enough for
    uint32_t excluded;  ///< components that are left out
};

/// What products find for a row: its largest score, the component that has
/// it, and Σ exp(score − top).
struct DenseFound {
    float top, sum;
    int best;
};

/** Operands and results; all on the device.
 * Row i of a batch is row i % piece_rows of its piece i / piece_rows; rows of
 * a piece beyond its count are zero.
 */
struct DenseProducts {
    /// of an operand: d, rounded up to a multiple of 16; of diagonal mixtures
    /// x' s and (x' t)², each rounded up to a multiple of 8
    int width = 0;
    const float* scales = nullptr; ///< s, t, powers of two; (2, d)
    int k_padded = 0;
    int64_t piece_rows = 0;
    Shift shift = {nullptr, 1};
    const uint32_t* numbers = nullptr; ///< of dense rows, see DensePiece
    __half* rows = nullptr;        ///< high, low, high; (rows, 3 · width)
    bool sm90 = false; ///< which kernels
    bool third = true; ///< whether anybody reads the third part of rows
    float* norm2 = nullptr;        ///< ‖x'‖², or 0 if diagonal; (rows)
    DenseFound* found = nullptr;   ///< (rows)
    float* log_density = nullptr;  ///< (rows); +inf beyond a piece's count
    __half* means = nullptr;       ///< low, high, high; (k_padded, 3 · width)
    float2* columns = nullptr;     ///< a, h, see ListInput; (k_padded)
    /// log p(x, k), (rows, k_padded); on sm_90 in another order, see
    /// dense_scores.cuh
    float* scores = nullptr;
    /// largest norm of rows that a component is exact enough for, and its part
    /// of the mean squared norm; (k)
    double2* reach = nullptr;
    DenseChoice* choice = nullptr;
    uint32_t* excluded = nullptr; ///< components, ascending; (k)
};

/// The means' side, once per model.
cudaError_t launch_split_means(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        cudaStream_t stream);

/// The choice; excluded components get scores of −inf.
cudaError_t launch_choose_components(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        cudaStream_t stream);

/// Norms of operands of rows [0, n) where the mixture is diagonal.
cudaError_t launch_diagonal_norms(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        float* norm,
        cudaStream_t stream);

/** Dense rows of each block, those for products before the others, each in
 * their order.
 * @param norm    (n) of x' (see PreparedRows), or launch_diagonal_norms()
 * @param counts  (blocks), x: wide rows of the block, the first ones of its
 *                part of `rows`; blocks with up to `most` are not dense
 * @param to      (n) like `rows`
 * @param split   (blocks) rows for products, and others
 */
cudaError_t launch_split_dense(
        const MixtureRowsInput& in,
        const float* norm,
        const DenseChoice* choice,
        int most,
        const uint2* counts,
        const uint32_t* rows,
        uint32_t* to,
        uint2* split,
        cudaStream_t stream);

/// The rows' side.
cudaError_t launch_split_rows(
        const MixtureRowsInput& in,
        int64_t rows,
        const DensePiece* pieces,
        const DenseProducts& products,
        cudaStream_t stream);

/** Scores of `rows` rows, and what they find. Excluded components have a
 * score of −inf. Weights are not looked at.
 */
cudaError_t launch_dense_scores_sm80(
        int64_t rows,
        const DenseProducts& products,
        cudaStream_t stream);
/// Needs compute capability 9.0.
constexpr int dense_scores_sm90_max_width = 128; ///< without the third part
cudaError_t launch_dense_scores_sm90(
        int64_t rows,
        const DenseProducts& products,
        int multiprocessors,
        cudaStream_t stream);

/** What products found and the excluded components' exact densities to log
 * densities.
 * @param excluded  number of them
 * @param dist, shares  of excluded components, (excluded, rows)
 */
cudaError_t launch_settle_dense(
        const MixtureRowsInput& in,
        int64_t rows,
        int excluded,
        const DensePiece* pieces,
        const DenseProducts& products,
        float* dist,
        float* shares,
        const MixtureRowsOutput& out,
        cudaStream_t stream);

/** Sums of each piece, of x' in place of x: matrix products with shares made
 * from scores. All weights are 1. Excluded components have sums of zero.
 * Spherical mixtures only.
 */
cudaError_t launch_dense_sums_sm80(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const MixtureRowsOutput& out,
        cudaStream_t stream);
/// The same of any mixture: of diagonal ones, of both parts of operands, in
/// place of x and squares. Needs compute capability 9.0.
cudaError_t launch_dense_sums_sm90(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const MixtureRowsOutput& out,
        cudaStream_t stream);

/// The same of the excluded components, from their shares; see
/// launch_settle_dense().
cudaError_t launch_dense_excluded_sums(
        const MixtureRowsInput& in,
        int pieces,
        int excluded,
        const DenseProducts& products,
        const DenseScratch& scratch,
        cudaStream_t stream);

/// Sums of pieces, of x again, onto `out` in order.
cudaError_t launch_combine_products(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const DeviceStatistics& out,
        cudaStream_t stream);

} // namespace faiss_flash
