#pragma once

#include <memory>
#include <string>
#include <vector>

#include <faiss_flash/engine/engine_options.h>
#include <faiss_flash/faiss_compat.h>
#include <faiss_flash/trainer/model.h>
#include <faiss_flash/trainer/vector_type.h>

namespace faiss_flash {

class VectorSource;
struct TrainingPlan;
struct TrainingResult;

/** k-means on this library's engines: a drop-in for faiss::Clustering.
 *
 * Minimises Σ_i ‖x_i − c_a(i)‖² (or maximises Σ_i x_i·c_a(i) for an
 * inner-product index) by Lloyd's iterations: exact nearest centroids by a
 * fused distance and argmin, then centroid sums by segments of the vectors
 * sorted by centroid. The N×K distances never exist; memory beyond the input
 * is O(k·d) plus a few MiB.
 *
 * Every field of faiss::ClusteringParameters of the FAISS it is built
 * against means what it means there, with the same random numbers: same
 * subsample, same initial centroids, same split of empty clusters. From the
 * same start the objective follows FAISS's up to rounding.
 *
 * What differs from faiss::Clustering: the assignment is exact and done by
 * the engine, whatever kind of index is passed (the index receives the
 * centroids at the end); split_clusters falls back to the largest cluster
 * when FAISS's random choice could not end; a subsample is gathered pass by
 * pass instead of copied.
 *
 * Same input, seed and engine give the same bytes, whatever the number of
 * threads. Errors are faiss::FaissException; centroids and index are then
 * as they were.
 *
 * Tests: tests/test_clustering.cpp.
 */
struct FlashClustering : faiss::Clustering {
    /// engine to run on, see engine/engine.h
    std::string engine = "auto";
    /// device memory and stream of engines that have them
    EngineOptions engine_options;

    /// Outputs: the clusters read as an isotropic Gaussian mixture with one
    /// shared variance, σ² = Σ_i ‖x_i − c_a(i)‖² / (n·d) and π_k = n_k / n
    /// from the last pass, so that responsibilities can be had for k-means
    /// centroids as well. Size k each; (k, d) variances of a GMMClustering
    /// with diagonal covariances.
    std::vector<float> variances;
    std::vector<float> mixing_weights;

    FlashClustering(int d, int k);
    FlashClustering(int d, int k, const faiss::ClusteringParameters& cp);

    /** Train, and leave the centroids in `centroids` and in `index`.
     *
     * @param n        number of vectors, at least k
     * @param x        vectors, (n, d), finite
     * @param index    receives the k centroids; its metric (L2 or inner
     *                 product) is the one optimised
     * @param weights  (n), finite, ≥ 0, at least one > 0; nullptr: all 1
     */
    void train(
            idx_t n,
            const float* x,
            faiss::Index& index,
            const float* weights = nullptr) override;

    /** The same for vectors encoded with `codec` (nullptr: plain floats).
     *
     * faiss::Clustering::train_encoded is not virtual: call this one through
     * a FlashClustering, not through a faiss::Clustering.
     */
    void train_encoded(
            idx_t n,
            const uint8_t* x,
            const faiss::Index* codec,
            faiss::Index& index,
            const float* weights = nullptr);

    /** The same for vectors on the current CUDA device, in any of these
     * types, read where they are: k-means does not convert them to floats,
     * except when they have weights or very different magnitudes; mixtures
     * work on a copy in floats. The same values give the same centroids,
     * whatever the type.
     *
     * @param x        device pointer, (n, d); written before this call or by
     *                 work on engine_options.stream
     * @param weights  on the host
     */
    void train_device(
            idx_t n,
            const void* x,
            VectorType type,
            faiss::Index& index,
            const float* weights = nullptr);

    /// The centroids with variances and mixing weights, as trained.
    Model model(faiss::MetricType metric = faiss::METRIC_L2) const;

   protected:
    /// What kind of passes to run; the base class runs k-means only.
    virtual void complete_plan(TrainingPlan& plan) const;
    /// Take what a finished training left.
    virtual void take_result(TrainingResult& result);
    /// The name that starts error messages.
    virtual const char* class_name() const;

   private:
    void check_arguments(
            idx_t n,
            const void* x,
            const faiss::Index* codec,
            const faiss::Index& index,
            const float* weights) const;
    void train_on(
            std::unique_ptr<VectorSource> all,
            faiss::Index& index,
            const float* weights);
    std::unique_ptr<VectorSource> subsample(
            std::unique_ptr<VectorSource> source,
            const float* weights,
            int64_t resolved_seed) const;
    TrainingPlan make_plan(
            const VectorSource& source,
            faiss::MetricType metric,
            int64_t resolved_seed) const;
    TrainingResult copy_vectors(const VectorSource& source) const;
};

} // namespace faiss_flash
