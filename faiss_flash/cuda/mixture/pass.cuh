#pragma once

#include <functional>
#include <memory>

#include <faiss_flash/cuda/assigner.cuh>
#include <faiss_flash/cuda/mixture/dense_pass.cuh>
#include <faiss_flash/cuda/mixture/diagonal.cuh>
#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/mixture/plan.h>
#include <faiss_flash/cuda/mixture/tiles.cuh>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/trainer/statistics.h>

namespace faiss_flash {

/** Soft passes over a training set of up to n vectors.
 *
 * Per pass: begin(), add() for every chunk in order, fetch(). The sequence
 * of passes decides the bytes of the results: the best component of each row
 * is kept from pass to pass and gives the next one its thresholds.
 */
class MixturePass {
   public:
    /// @param n           vectors of the training set
    /// @param chunk_rows  largest chunk
    /// @param diagonal    whether the covariances of all models will be
    MixturePass(
            int64_t n,
            int64_t chunk_rows,
            int k,
            int d,
            bool diagonal,
            size_t budget,
            cudaStream_t stream);

    static size_t least_bytes(
            int64_t n,
            int64_t chunk_rows,
            int k,
            int d,
            bool diagonal);

    bool diagonal() const {
        return plan_.diagonal;
    }

    void begin(const Model& model, cudaStream_t stream);

    /// Rows [i0, i0 + rows.prepared().n) of the set, with their original
    /// values; waits for the stream.
    void add(
            int64_t i0,
            DeviceRows& rows,
            const float* x,
            const float* weights,
            const DeviceCentroids& means,
            const DeviceInfo& device,
            cudaStream_t stream);

    /// Rows of a chunk that are worked on at once.
    int64_t rows_at_once() const {
        return plan_.rows;
    }
    /// log p(x) of the last of these; on the device.
    const double* log_density() const {
        return log_density_.get();
    }
    /// Rows of this pass that had too many components for a tile.
    int64_t wide_rows() const {
        return wide_count_;
    }
    /// For measurements: called with a name when a stage has been enqueued.
    std::function<void(const char*)> on_stage;

    /// The next pass starts from nearest means again.
    void forget() {
        seeded_ = false;
    }

    /// Into `out`, which has the right shape; waits for the stream.
    void fetch(Statistics& out, cudaStream_t stream);

   private:
    /// best components and accumulators
    static size_t fixed_bytes(int64_t n, int k, int d, bool diagonal);
    /// Of all statistics, once.
    size_t values() const;
    void list_rows(
            const MixtureRowsInput& in,
            const PreparedRows& rows,
            const PreparedCentroids& means,
            const ListTerms& terms,
            const Shift& shift,
            int64_t first,
            const DeviceInfo& device,
            cudaStream_t stream);
    void add_rows(
            const MixtureRowsInput& in,
            const float* norm,
            const Shift& shift,
            int64_t first,
            const DeviceInfo& device,
            cudaStream_t stream);
    TileItems items() const;
    WideRows wide() const;
    DeviceStatistics accumulators(bool dense) const;
    void stage(const char* name) const {
        if (on_stage) {
            on_stage(name);
        }
    }

    const int64_t n_;
    const MixturePlan plan_;
    bool seeded_ = false;
    int passes_ = 0; ///< since best components were nearest means
    int64_t wide_count_ = 0; ///< rows of this pass
    bool dense_ = false;     ///< there were dense rows in this pass
    DeviceMixture mixture_; ///< spherical, or:
    std::unique_ptr<DiagonalMixture> diagonal_;
    bool rescale_ = false;       ///< see DiagonalMixture::prepare
    bool rows_prepared_ = false; ///< all, for the diagonal mixture's scales
    DeviceArray<uint32_t> best_, order_; ///< (n)
    DeviceArray<uint32_t> unproved_;
    DeviceArray<RowLimit> limits_;
    DeviceArray<uint32_t> masks_;
    DeviceArray<uint32_t> near_;
    DeviceArray<uint8_t> order_scratch_;
    DeviceArray<double> log_density_, row_partial_;
    DeviceArray<uint32_t> item_bits_, item_first_;
    DeviceArray<TileItem> items_;
    DeviceArray<float> vectors_;
    DeviceArray<unsigned long long> used_;
    DeviceArray<uint8_t> wide_marks_;
    DeviceArray<uint32_t> wide_rows_;
    DeviceArray<uint2> wide_counts_;
    DeviceArray<float2> wide_shares_;
    DensePass dense_rows_;
    DeviceArray<double> accumulators_; ///< sparse, then dense
    DeviceArray<unsigned long long> members_;
    DeviceArray<RowTotals> totals_;
    PooledBuffer host_statistics_;
};

} // namespace faiss_flash
