#pragma once

// Diagonal covariances: upper bounds of log densities as one product of
// halves, [x, x²] by [h μ, −h], and what they are compared with. README.md
// derives them.

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/mixture/prepare.cuh>
#include <faiss_flash/cuda/mixture/settle.cuh>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

/** A diagonal mixture on the device, with up to `rows` rows prepared for it.
 *
 * With x' = x − offset the score of component k for row x is
 *   v = a_k + h_k (2 u·w_k − slack_x),
 * u = [x'_j s_j, (x'_j t_j)²] in halves. v ≥ log p(x, k) for every row and
 * component, whatever their norms: all roundings are towards larger v, and
 * slack_x (not positive) allows for the sums of the matrix unit. So, unlike
 * spherical scores, v depends on the row and the component alone.
 */
class DiagonalMixture {
   public:
    DiagonalMixture(int64_t rows, int k, int d, cudaStream_t stream);

    static size_t bytes(int64_t rows, int k, int d);

    /// The model but for its means.
    void set(const Model& model, cudaStream_t stream);

    /** Scores of the components set last.
     * @param means    (k, d), on the device
     * @param rescale  choose s and t for this model; rows have to be prepared
     *                 again. They are powers of two that keep halves in range
     *                 and |u||w| small; any are right.
     */
    void prepare(
            const float* means,
            const Shift& shift,
            bool rescale,
            cudaStream_t stream);

    /// @param x  (n, d), n ≤ rows
    void prepare_rows(
            int64_t n,
            const float* x,
            const Shift& shift,
            cudaStream_t stream);

    /** Thresholds of the rows prepared last: log p of the component
     * in `best`, less the range of the pass and what single precision loses.
     * @param order  see launch_order_rows(): rows with the same component
     *               follow each other
     */
    void limits(
            const MixtureRowsInput& in,
            const uint32_t* best,
            const uint32_t* order,
            RowLimit* limits,
            cudaStream_t stream) const;

    /// For fill_masks(), which looks at nothing else of them.
    PreparedRows rows() const;
    PreparedCentroids means() const;
    ListTerms terms() const;

    /// log_scale, and 1: distances are Σ_j (x_j − μ_kj)² / 2σ²_kj; (k)
    const ComponentTerms* components() const {
        return components_.get();
    }
    /// s and t, (2, d)
    const float* scales() const {
        return scales_.get();
    }
    /// 1 / 2σ², (k, d)
    const float* half_precisions() const {
        return half_precisions_.get();
    }

   private:
    int k_, d_;
    int64_t n_ = 0;
    DeviceArray<float> given_; ///< σ² (k, d), π (k)
    DeviceArray<ComponentTerms> components_;
    DeviceArray<float> half_precisions_;
    DeviceArray<double> moments_; ///< what scales are chosen from, (4, d)
    DeviceArray<float> scales_;   ///< s, t, (2, d); rms |u|
    DeviceArray<__half> row_halves_, mean_halves_;
    DeviceArray<float> row_slack_;
    DeviceArray<float2> columns_;
    DeviceArray<ListBounds> bounds_; ///< all 0
    PooledBuffer staging_;
    Event staged_;
};

} // namespace faiss_flash
