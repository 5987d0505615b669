#pragma once

#include <memory>
#include <vector>

#include <faiss_flash/cuda/assigner.cuh>
#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

/// The m best of vectors are found on the device for m up to this; beyond,
/// lists would be too short too often.
constexpr size_t query_most = 16;

/** The m best of some vectors: components by responsibility, or centroids by
 * distance or product; exact as Engine says.
 *
 * Rows whose lists are too short are left to the CPU engine.
 */
class ListQuery {
   public:
    /// Host arrays for all n vectors; shapes as in Engine.
    struct Answer {
        const float* x;
        size_t m;
        bool responsibilities; ///< or nearest
        idx_t* labels;
        float* values;
        float* log_likelihood; ///< or nullptr
    };

    /// Whether the device finds so many: of diagonal mixtures a Hopper GPU.
    static bool can(const Model& model, size_t m, bool responsibilities);

    ListQuery(const Model& model, const Answer& answer, int64_t chunk_rows);

    /// Rows [i0, i0 + rows.prepared().n); waits for the stream.
    void add(
            int64_t i0,
            DeviceRows& rows,
            const float* x,
            const DeviceCentroids& means,
            const DeviceInfo& device,
            cudaStream_t stream);

   private:
    struct Work;
    struct DiagonalWork;
    void add_diagonal(
            int64_t i0,
            int64_t n,
            const float* x,
            const DeviceCentroids& means,
            const DeviceInfo& device,
            cudaStream_t stream);
    void add_part(
            int64_t i0,
            const PreparedRows& rows,
            const PreparedCentroids& prepared,
            const ListTerms& terms,
            const uint32_t* labels,
            const float* x,
            const float* means,
            const DeviceInfo& device,
            cudaStream_t stream);
    /// Answers of n rows from i0 on to the host; the CPU engine's where there
    /// is none.
    void fetch(
            int64_t i0,
            int64_t n,
            const idx_t* labels,
            const float* values,
            const double* log_density,
            cudaStream_t stream);
    void ask_cpu(const std::vector<int64_t>& rows) const;

    const Model& model_;
    const Answer answer_;
    const int64_t part_rows_;
    std::shared_ptr<Work> work_;
    std::shared_ptr<DiagonalWork> diagonal_;
    std::vector<double> host_log_density_;
};

} // namespace faiss_flash
