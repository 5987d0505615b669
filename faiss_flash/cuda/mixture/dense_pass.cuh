#pragma once

#include <vector>

#include <faiss_flash/cuda/mixture/dense_products.cuh>
#include <faiss_flash/cuda/mixture/plan.h>
#include <faiss_flash/cuda/mixture/tiles.cuh>
#include <faiss_flash/cuda/pinned_pool.h>

namespace faiss_flash {

/** The dense rows of soft passes: those of blocks with too many wide rows.
 *
 * What a block of rows holds and the model decide which of its rows go
 * through matrix products (dense_products.cuh) and which through difference
 * form (dense.cuh), so results do not depend on chunks or memory.
 */
class DensePass {
   public:
    DensePass(const MixturePlan& plan, cudaStream_t stream);

    static size_t bytes(const MixturePlan& plan);

    /// Enqueues a copy of what `wide` counts, for add().
    void count(const WideRows& wide, int64_t blocks, cudaStream_t stream);

    struct Added {
        int64_t wide_rows = 0;
        bool dense = false; ///< some of these were dense
    };
    /** Densities and statistics of the dense rows. Waits for the stream where
     * there are any, and for count() in any case.
     * @param norm    (n) of x', see PreparedRows; not of diagonal mixtures
     * @param scales  of a diagonal mixture, see DenseProducts
     */
    Added add(
            const MixtureRowsInput& in,
            const float* norm,
            const Shift& shift,
            const float* scales,
            const WideRows& wide,
            const MixtureRowsOutput& out,
            const DeviceStatistics& statistics,
            const DeviceInfo& device,
            cudaStream_t stream);

   private:
    /// Pieces that are worked on together.
    struct Batch {
        int first, count;
        bool by_products;
    };
    int64_t piece_rows(bool by_products) const;
    /// Of a batch: shares_ has room for so many.
    int most_pieces(bool by_products, int excluded, int k) const;
    static size_t share_values(const MixturePlan& plan);
    void add_by_products(
            const MixtureRowsInput& in,
            DenseProducts products,
            const Batch& batch,
            int excluded,
            const MixtureRowsOutput& out,
            const DeviceStatistics& statistics,
            const DeviceInfo& device,
            cudaStream_t stream);
    void add_plain(
            const MixtureRowsInput& in,
            const uint32_t* numbers,
            const Batch& batch,
            const std::vector<DensePiece>& pieces,
            const MixtureRowsOutput& out,
            const DeviceStatistics& statistics,
            cudaStream_t stream);
    DenseProducts products(const Shift& shift) const;
    DenseScratch scratch(const Batch& batch) const;

    const MixturePlan plan_;
    DeviceArray<uint32_t> rows_; ///< dense ones, see launch_split_dense()
    DeviceArray<uint2> split_;
    DeviceArray<float> scores_, shares_;
    DeviceArray<__half> row_halves_, mean_halves_;
    DeviceArray<float> norm_, norm2_, log_density_;
    DeviceArray<DenseFound> found_;
    DeviceArray<float2> columns_;
    DeviceArray<double2> reach_;
    DeviceArray<DenseChoice> choice_;
    DeviceArray<uint32_t> excluded_;
    DeviceArray<DensePiece> pieces_;
    DeviceArray<double> sums_, scalars_;
    PooledBuffer host_; ///< counts and split of blocks, choice, pieces
    Event counted_;
};

} // namespace faiss_flash
