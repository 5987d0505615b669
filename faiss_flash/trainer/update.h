#pragma once

#include <faiss_flash/trainer/model.h>
#include <faiss_flash/trainer/statistics.h>
#include <faiss_flash/trainer/trainer.h>

namespace faiss_flash {

// Model updates from sufficient statistics: the M of both loops.

/// c_k = Σ w x / Σ w for k ≥ n_frozen; a cluster without weight becomes 0
/// (and is then split).
void update_centroids(const Statistics& stats, size_t n_frozen, Model& model);

/// FAISS's treatment of empty clusters: each takes half of a cluster picked
/// at random in proportion to its size, both moved apart by a factor
/// 1 ± 1/1024. `sizes` (k) are updated. Where a pick is impossible (all
/// sizes ≤ 1) or would take very long (small weights) the largest cluster is
/// split. Returns the number of splits.
/// Source: faiss/Clustering.cpp, split_clusters.
int split_empty_clusters(
        int64_t n,
        size_t n_frozen,
        std::vector<float>& sizes,
        Model& model);

/// Unit length (spherical), then whole numbers (int_centroids), as FAISS;
/// (count, d).
void post_process(
        const TrainingPlan& plan,
        size_t d,
        size_t count,
        float* means);
/// Of all means.
void post_process(const TrainingPlan& plan, Model& model);

/// Read clusters as a mixture: shared variance Σ energy / (d·Σ counts) and
/// weights counts / Σ counts, from the last hard pass.
void mixture_from_clusters(const Statistics& stats, Model& model);

/// A variance that is as good as zero beside the means' rounding, for
/// vectors that lie on their centroids.
double smallest_variance(const Model& model);

/** The smallest σ² the M-step may give, from the model that the warm start
 * left (one variance for all) and the first soft pass with it.
 *
 * Spherical: one number, plan.variance_floor of the mean variance. Diagonal:
 * (d) numbers, plan.variance_floor of each dimension's variance around its
 * means; a dimension in which nothing varies counts with a thousandth of the
 * others, so that it does not drown them where another vector differs in it.
 * Never above the variance the warm start left, which EM starts from.
 */
std::vector<double> variance_floor(
        const TrainingPlan& plan,
        const Statistics& first,
        const Model& model);

/// The M-step for k ≥ n_frozen means, all variances and weights; means are
/// post-processed and the variances are those around the final means m: in
/// each dimension
///   Σ r(x−m)² = Σ r(x−μ)² + (μ − m)·(2S − N(μ + m))
/// which has no cancellation of large norms. Spherical variances take the sum
/// over the dimensions, tied ones the sum over the components. A component
/// without weight keeps its mean and, where it is its own, its variance.
/// @param floor  as variance_floor() gives it
void update_mixture(
        const TrainingPlan& plan,
        const Statistics& stats,
        size_t n_frozen,
        const std::vector<double>& floor,
        Model& model);

/// Re-seed components whose weight is below min_weight / k beside the one
/// with the largest energy (its weight and energy are halved each time): the
/// means are moved apart by ± a tenth of a standard deviation in each
/// dimension. Returns the number re-seeded.
int reseed_components(
        const TrainingPlan& plan,
        const Statistics& stats,
        size_t n_frozen,
        Model& model);

} // namespace faiss_flash
