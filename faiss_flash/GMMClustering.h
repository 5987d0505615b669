#pragma once

#include <vector>

#include <faiss_flash/FlashClustering.h>

namespace faiss_flash {

/// How a Gaussian mixture is fitted.
struct GMMParameters {
    /// k-means passes before the first EM pass
    int warm_start_niter = 10;
    /// at most this many EM passes
    int em_niter = 90;
    /// stop when an EM pass adds less than this to the log-likelihood per
    /// vector (nats)
    double em_tolerance = 1e-4;
    /// one variance for all components instead of one each
    bool shared_variance = false;
    /// smallest variance, as a fraction of the data's mean variance around
    /// the warm start's centroids
    double variance_floor = 1e-3;
    /// a component with less than this share of 1/k of the weight is
    /// re-seeded beside the one with the largest Σ r ‖x − μ‖²
    double min_weight = 1e-3;

    /// Throws a FaissException naming the field, its value and the bound.
    void check() const;
};

/// One EM pass.
struct EMStats {
    double log_likelihood;     ///< per unit of weight, of the pass's model
    double time;               ///< seconds since training began
    double entries_per_vector; ///< components kept per vector
    double dropped_mass;       ///< largest bound on responsibility left out
    int nreseed;               ///< components re-seeded after the pass
};

/** Isotropic Gaussian mixture by EM, as a drop-in for faiss::Clustering.
 *
 *   p(x) = Σ_k π_k N(x | μ_k, σ²_k I)
 *
 * E-step: r_ik = π_k N(x_i | μ_k, σ²_k I) / p(x_i). M-step, with
 * N_k = Σ_i w_i r_ik: μ_k = Σ_i w_i r_ik x_i / N_k, σ²_k = Σ_i w_i r_ik
 * ‖x_i − μ_k‖² / (d·N_k), π_k = N_k / Σ w.
 *
 * After a k-means warm start the responsibilities of real data are sparse:
 * a pass keeps, per vector, the components within ln(k/10⁻⁶) nats of its
 * best one, so that what is left out is below 10⁻⁶ per vector, and feeds
 * them to the same segment sums as k-means (see faiss_flash/cpu/README.md).
 * The log-likelihood never falls (beyond rounding) between re-seeds.
 *
 * The means are left in `centroids` and in the index. `spherical` keeps the
 * means on the unit sphere, `int_centroids` rounds them (the log-likelihood
 * may then fall), input centroids and `frozen_centroids` hold as in k-means.
 * `niter` is not used (gmm.warm_start_niter and gmm.em_niter take its
 * place), nor is early_stop_threshold; `nredo` keeps the best
 * log-likelihood. An index of any metric is fitted in L2 geometry.
 *
 * Idea and τ = 1/K rule: Flash-GMM. Tests: tests/test_gmm.cpp.
 */
struct GMMClustering : FlashClustering {
    GMMParameters gmm;

    /// Output: one entry per EM pass. `iteration_stats` holds the warm start.
    std::vector<EMStats> em_stats;

    GMMClustering(int d, int k);
    GMMClustering(int d, int k, const faiss::ClusteringParameters& cp);
    GMMClustering(
            int d,
            int k,
            const faiss::ClusteringParameters& cp,
            const GMMParameters& gmm);

   protected:
    void complete_plan(TrainingPlan& plan) const override;
    void take_result(TrainingResult& result) override;
    const char* class_name() const override;
};

} // namespace faiss_flash
