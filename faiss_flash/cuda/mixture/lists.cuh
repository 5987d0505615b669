#pragma once

// The listing passes from the host: a mixture on the device, and the lists of
// some rows.

#include <vector>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/mixture/masks.cuh>
#include <faiss_flash/cuda/mixture/prepare.cuh>
#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

/// Longest distance in nats from a row's best component at which one is
/// listed, so that all others together hold less than a quarter of
/// mixture_drop of the row.
float mixture_range(int k);

/// Share of a vector that a pass may leave out, at most: a quarter is never
/// listed, half is left out for its scores and a quarter once
/// responsibilities are known.
constexpr double mixture_drop = 0x1p-20;
static_assert(mixture_drop < 1e-6, "max_dropped_mass of the engines");

/// A mixture on the device, with its scores for one set of rows.
class DeviceMixture {
   public:
    DeviceMixture(int k, cudaStream_t stream);

    void set(const Model& model, cudaStream_t stream);

    /// Scores of the mixture set last for `rows`.
    ListTerms terms_for(
            const PreparedRows& rows,
            const PreparedCentroids& means,
            float scale,
            cudaStream_t stream);

    /// Scores of plain centroids: distances, or products.
    ListTerms terms_for_centroids(
            const PreparedRows& rows,
            const PreparedCentroids& means,
            bool l2,
            cudaStream_t stream);

    const ComponentTerms* components() const {
        return components_.get();
    }

   private:
    ListTerms terms() const {
        return {columns_.get(), slack_.get(), bounds_.get()};
    }
    int k_;
    DeviceArray<ComponentTerms> components_;
    DeviceArray<float2> columns_;
    DeviceArray<float> slack_;
    DeviceArray<ListBounds> bounds_;
    std::vector<ComponentTerms> host_;
};

/// Rows of one listing, see ListOutput.
class RowLists {
   public:
    RowLists(int64_t rows, cudaStream_t stream);
    static size_t bytes(int64_t rows);

    /// Lists for the limits in limits(), of all rows of `rows`.
    void fill(
            const PreparedRows& rows,
            const PreparedCentroids& means,
            const ListTerms& terms,
            const DeviceInfo& device,
            cudaStream_t stream);

    /// Best scores of groups for the norms in limits().
    /// @param group_best  see GroupOutput
    void fill_groups(
            const PreparedRows& rows,
            const PreparedCentroids& means,
            const ListTerms& terms,
            float* group_best,
            const DeviceInfo& device,
            cudaStream_t stream) const;

    RowLimit* limits() const {
        return limits_.get();
    }
    ListOutput lists() const;
    int parts() const {
        return parts_;
    }

   private:
    int parts_ = 4;
    DeviceArray<Listed> listed_;
    DeviceArray<uint8_t> counts_;
    DeviceArray<RowLimit> limits_;
};

/// What reaches the thresholds `limits` (n), as bits.
void fill_masks(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const RowLimit* limits,
        const MaskOutput& out,
        const DeviceInfo& device,
        cudaStream_t stream);

} // namespace faiss_flash
