#include <faiss_flash/GMMClustering.h>

#include <faiss_flash/trainer/trainer.h>

namespace faiss_flash {

GMMClustering::GMMClustering(int d, int k) : FlashClustering(d, k) {}

GMMClustering::GMMClustering(
        int d,
        int k,
        const faiss::ClusteringParameters& cp)
        : FlashClustering(d, k, cp) {}

GMMClustering::GMMClustering(
        int d,
        int k,
        const faiss::ClusteringParameters& cp,
        const GMMParameters& gmm)
        : FlashClustering(d, k, cp),
          gmm(gmm) {}

const char* GMMClustering::class_name() const {
    return "GMMClustering";
}

void GMMParameters::check() const {
    FAISS_THROW_IF_NOT_FMT(
            warm_start_niter >= 0,
            "GMMParameters: warm_start_niter = %d should be at least 0",
            warm_start_niter);
    FAISS_THROW_IF_NOT_FMT(
            em_niter >= 1,
            "GMMParameters: em_niter = %d should be at least 1",
            em_niter);
    FAISS_THROW_IF_NOT_FMT(
            em_tolerance >= 0,
            "GMMParameters: em_tolerance = %g should be at least 0",
            em_tolerance);
    FAISS_THROW_IF_NOT_FMT(
            variance_floor > 0 && variance_floor <= 1,
            "GMMParameters: variance_floor = %g should be in (0, 1]",
            variance_floor);
    FAISS_THROW_IF_NOT_FMT(
            min_weight >= 0 && min_weight < 1,
            "GMMParameters: min_weight = %g should be in [0, 1)",
            min_weight);
}

void GMMClustering::complete_plan(TrainingPlan& plan) const {
    gmm.check();
    plan.metric = Metric::l2;
    plan.hard_passes = gmm.warm_start_niter;
    plan.early_stop_threshold = -1;
    plan.soft_passes = gmm.em_niter;
    plan.em_tolerance = gmm.em_tolerance;
    plan.covariance = gmm.covariance;
    plan.variance_floor = gmm.variance_floor;
    plan.min_weight = gmm.min_weight;
}

void GMMClustering::take_result(TrainingResult& result) {
    if (is_diagonal(gmm.covariance)) {
        result.model.make_diagonal(); // also where nothing was fitted
    }
    for (const PassReport& r : result.passes) {
        if (r.pass == Pass::soft) {
            em_stats.push_back(
                    {r.objective,
                     r.seconds,
                     r.entries_per_vector,
                     r.dropped_mass,
                     r.nsplit});
        }
    }
    FlashClustering::take_result(result);
}

} // namespace faiss_flash
