#pragma once

// Many dense rows at once, with matrix products of halves: values are split
// in two halves each, three of the four products are summed (the fourth is
// below single precision).

#include <faiss_flash/cuda/mixture/dense.cuh>

namespace faiss_flash {

/// Most components: shares below 2⁻³⁴ vanish, which stays below
/// mixture_drop / 4 together.
constexpr int dense_products_max_k = 1 << 12;
/// A block of rows with fewer dense ones is not worth it.
constexpr int dense_products_min_rows = 1024;
/// Largest error of a log density, in nats, that the products may have by
/// their bound, which takes every step of every sum to lose as much as one
/// can, in the same direction; measured errors are below 10⁻⁴.
constexpr float dense_products_error = 2e-2f;

/// Bound on the error of a row's log densities by products.
__device__ inline float dense_products_bound(
        int d,
        float row_norm,
        const ListBounds& bounds) {
    const float product = row_norm * bounds.norm;
    const float sum = row_norm + bounds.norm;
    // accumulation truncates; operands keep 22 bits; norms and last additions
    return bounds.h *
            (2 * product *
                     (1.06f * 0x1p-23f * (3 * d + 16) + 3 * 0x1p-22f) +
             (d / 32 + 16) * 0x1p-24f * sum * sum) +
            0x1p-21f * bounds.scale;
}

/// Operands and results; all on the device.
struct DenseProducts {
    int d_padded = 0, k_padded = 0;
    Shift shift = {nullptr, 1};
    __half* rows = nullptr;      ///< high, high, low; (rows, 3 · d_padded)
    float* norm2 = nullptr;      ///< ‖x'‖², (rows)
    float* log_density = nullptr; ///< (rows)
    __half* means = nullptr;     ///< high, low, high; (k_padded, 3 · d_padded)
    float2* columns = nullptr;   ///< a, h, see ListInput; (k_padded)
    float* scores = nullptr;     ///< log p(x, k), (rows, k_padded)
};

/// The means' side, once per model.
cudaError_t launch_split_means(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        cudaStream_t stream);

/// Log densities of `rows` rows; see launch_dense_shares(). Weights are not
/// looked at.
cudaError_t launch_dense_scores(
        const MixtureRowsInput& in,
        int64_t rows,
        const uint32_t* numbers,
        const DenseProducts& products,
        const MixtureRowsOutput& out,
        cudaStream_t stream);

/// Their statistics; see launch_dense_sums(). All weights are 1.
cudaError_t launch_dense_product_sums(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const MixtureRowsOutput& out,
        const DeviceStatistics& statistics,
        cudaStream_t stream);

} // namespace faiss_flash
