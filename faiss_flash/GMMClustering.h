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
    /// spherical or diagonal, one for each component or one for all
    Covariance covariance = Covariance::spherical;
    /// smallest variance, as a fraction of the data's mean variance around
    /// the warm start's centroids; with diagonal covariances of that
    /// dimension's, see variance_floor() in trainer/update.h
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

/** Gaussian mixture by EM, as a drop-in for faiss::Clustering.
 *
 *   p(x) = Σ_k π_k N(x | μ_k, Σ_k)
 *
 * E-step: r_ik = π_k N(x_i | μ_k, Σ_k) / p(x_i). M-step, with
 * N_k = Σ_i w_i r_ik: μ_k = Σ_i w_i r_ik x_i / N_k, π_k = N_k / Σ w, and
 * with e_kj = Σ_i w_i r_ik (x_ij − μ_kj)², as gmm.covariance says:
 *
 *   spherical        Σ_k = σ²_k I,       σ²_k  = Σ_j e_kj / (d·N_k)
 *   tied_spherical   Σ_k = σ² I,         σ²    = Σ_kj e_kj / (d·Σ w)
 *   diag             Σ_k = diag(σ²_k·),  σ²_kj = e_kj / N_k
 *   tied_diag        Σ_k = diag(σ²_·),   σ²_j  = Σ_k e_kj / Σ w
 *
 * `variances` then holds (k) values, or (k, d) of diagonal covariances (tied
 * ones k times the same).
 *
 * After a k-means warm start the responsibilities of real data are sparse:
 * a pass keeps, per vector, the components within ln(k/10⁻⁶) nats of its
 * best one, so that what is left out is below 10⁻⁶ per vector, and feeds
 * them to the same segment sums as k-means (see faiss_flash/cpu/README.md).
 * The log-likelihood never falls (beyond rounding) between re-seeds.
 *
 * Spherical covariances suit an index that ranks its lists by L2: diagonal
 * ones fit better and find less (eval/README.md has the numbers). There are no
 * full ones: a model of k·d² numbers, a Cholesky factor of every component in
 * every pass, and d² operations instead of d for each kept pair, for lists
 * that can be expected to find less still (not measured).
 *
 * The means are left in `centroids` and in the index. `spherical` keeps the
 * means on the unit sphere (the log-likelihood may then fall with diagonal
 * covariances), `int_centroids` rounds them (it may fall), input centroids and
 * `frozen_centroids` hold as in k-means. `niter` is not used
 * (gmm.warm_start_niter and gmm.em_niter take its place), nor is
 * early_stop_threshold; `nredo` keeps the best log-likelihood. An index of any
 * metric is fitted in L2 geometry.
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
