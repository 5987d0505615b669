#pragma once

#include <faiss_flash/cuda/assign.cuh>
#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/cuda/prepare.cuh>
#include <faiss_flash/cuda/recheck.cuh>
#include <faiss_flash/cuda/update.cuh>
#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

/// The shift of the data and its scale, see Shift; chosen once per data set
/// from the first centroids.
struct HostShift {
    std::vector<float> offset;
    float scale = 1;
};
HostShift choose_shift(const Model& model);

/// Centroids on the device, as given and prepared.
class DeviceCentroids {
   public:
    DeviceCentroids(int k, int d, const HostShift& shift, cudaStream_t stream);
    ~DeviceCentroids();

    void set(const Model& model, cudaStream_t stream);
    /// What follows the upload in set(): means() to halves.
    void prepare(cudaStream_t stream);

    /// With scores for rows like `typical`; writes alpha.
    PreparedCentroids prepared_for(
            const TypicalRow* typical,
            cudaStream_t stream) const;
    float* means() const {
        return means_.get();
    }
    Shift shift() const {
        return {offset_.get(), scale_};
    }
    static size_t bytes(int k, int d);

   private:
    int k_, d_, d_padded_, k_padded_;
    float scale_;
    bool l2_ = true;
    DeviceArray<float> offset_, means_, alpha_, norm_, error_, norm2_;
    DeviceArray<ScoreTerms> terms_;
    PooledBuffer staging_; ///< (k, d) on their way to the device
    Event staged_;
    DeviceArray<__half> halves_;
};

/// Rows on the device: as given, and prepared for half-precision products,
/// with the arrays that assigning them fills.
class DeviceRows {
   public:
    DeviceRows(int64_t capacity, int d, cudaStream_t stream);

    /// `x` (n, d) stays the caller's.
    void prepare(
            int64_t n,
            const DeviceVectors& x,
            const Shift& shift,
            cudaStream_t stream);

    /// Exact labels of the prepared rows; see AssignOutput and recheck.cuh.
    /// @param n_unproved  receives how many rows needed the re-check, on the
    ///                    device
    void assign(
            const DeviceCentroids& centroids,
            uint32_t* n_unproved,
            const DeviceInfo& device,
            cudaStream_t stream);

    /// Its first half: labels that hold wherever the half-precision scores
    /// prove them, and the list of the others.
    AssignOutput assign_unchecked(
            const PreparedCentroids& centroids,
            uint32_t* n_unproved,
            const DeviceInfo& device,
            cudaStream_t stream);

    const uint32_t* labels() const {
        return labels_.get();
    }
    static size_t bytes(int64_t capacity, int d);

    PreparedRows prepared() const;

   private:
    int64_t n_ = 0;
    int d_, d_padded_;
    DeviceVectors x_;
    DeviceArray<__half> halves_;
    DeviceArray<float> norm_, error_, threshold_;
    DeviceArray<uint32_t> labels_, unproved_;
    DeviceArray<uint32_t> counts_, candidates_;
    DeviceArray<TypicalRow> typical_;
    DeviceArray<uint8_t> scratch_;
};

} // namespace faiss_flash
