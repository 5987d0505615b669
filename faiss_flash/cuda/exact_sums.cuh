#pragma once

// Statistics of k-means as exact integer sums that follow the rows that
// change their cluster.

#include <cstdint>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/update.cuh>
#include <faiss_flash/trainer/vector_type.h>

namespace faiss_flash {

/// Where rows are put on an integer grid: q = round(x·scale) − origin, the
/// origin being the first row (near the others, as a rule: smaller sums).
struct SumGrid {
    double scale;      ///< a power of two
    double unit;       ///< 1 / scale
    double largest;    ///< |x·scale| of a row on the grid stays below this
    double least;      ///< and its largest reaches this, unless it is 0
    uint32_t off_grid; ///< rows that don't
};

/** Unweighted sums over clusters, kept between passes.
 *
 * Rows are rounded to a grid of 2⁻³⁵ (n = 2²⁰; one bit coarser for every
 * doubling of n) of the largest coordinate met first, and summed as 64-bit
 * integers; squared norms as 128-bit integers. Integer sums do not depend on
 * their order: atomic additions give the same bytes every time, streamed or
 * resident, and only the rows whose label changed need to be read: a pass
 * costs two rows of additions for each of these, O(n) label comparisons, and
 * O(k·d).
 *
 * Rows that the grid does not suit (64 times larger than those it was made
 * for, or so small that they would be rounded to fewer than 26 bits; fewer
 * bits for n above 2²³) are summed afresh in every pass, in order, in double
 * precision, one after the other: meant for a few of them. See
 * too_many_off_grid().
 *
 * Energies come from Σ‖q‖² − ‖Σq‖²/N + N‖mean − c‖², the first difference in
 * about 100 bits, so that clusters far from the origin lose nothing.
 */
class ExactSums {
   public:
    ExactSums(int64_t n, int k, int d, cudaStream_t stream);

    static size_t bytes(int64_t n, int k, int d);

    /// Choose the grid from the first `count` rows; before the first add().
    /// It depends on the rows alone, so that sums over the same rows are the
    /// same whatever centroids came before.
    void start(int64_t count, const DeviceVectors& x, cudaStream_t stream);

    /// Take up the labels of rows [i0, i0 + count).
    /// @param means  (k, d), the centroids that the labels belong to
    /// @param out    gets the rows that are off the grid; see finish()
    void
    add(int64_t i0,
        int64_t count,
        const DeviceVectors& x,
        const uint32_t* labels,
        const float* means,
        bool l2,
        const DeviceStatistics& out,
        cudaStream_t stream);

    /// Add the sums over all rows to `out`.
    void finish(
            const float* means,
            bool l2,
            const DeviceStatistics& out,
            cudaStream_t stream) const;

    bool started() const {
        return started_;
    }

    /// Whether another way to sum would be faster. Waits for the stream.
    bool too_many_off_grid(cudaStream_t stream) const;

    struct Tables;

   private:
    Tables tables() const;

    int64_t n_;
    int k_, d_;
    bool started_ = false;
    DeviceArray<SumGrid> grid_;
    DeviceArray<int64_t> origin_;  ///< (d)
    DeviceArray<int64_t> sums_;    ///< Σ q, (k, d)
    DeviceArray<int64_t> norms_;   ///< Σ ‖q‖² in 4 limbs of 32 bits, (k, 4)
    DeviceArray<int64_t> members_; ///< (k)
    DeviceArray<uint32_t> before_; ///< (n) labels so far, see exact_sums.cu
    DeviceArray<uint32_t> largest_;
};

} // namespace faiss_flash
