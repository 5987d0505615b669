#include <eval/trained_quantizer.h>

#include <faiss/Clustering.h>

#include <datasets/progress.h>
#include <eval/counting_quantizer.h>
#include <eval/interrupt.h>
#include <eval/stopwatch.h>
#include <faiss_flash/GMMClustering.h>

namespace faiss_flash {

namespace {

faiss::ClusteringParameters clustering_parameters(
        const TrainingOptions& options) {
    faiss::ClusteringParameters cp;
    cp.niter = options.niter;
    cp.max_points_per_centroid = options.max_points_per_centroid;
    cp.seed = options.seed;
    // FAISS's IVF indexes do the same.
    cp.spherical = options.metric == faiss::METRIC_INNER_PRODUCT;
    return cp;
}

} // namespace

TrainedQuantizer train_quantizer(
        const Method& method,
        const TrainingOptions& options,
        size_t n,
        size_t d,
        const float* x) {
    const faiss::ClusteringParameters cp = clustering_parameters(options);
    const int k = static_cast<int>(options.nlist);
    const bool gmm = !method.stock && method.trainer == Trainer::gmm;
    const int passes = options.niter + (gmm ? options.em_niter : 0);
    CountingQuantizer quantizer(d, options.metric);
    ProgressBar progress(
            "training " + method.trainer_name() + " (seed " +
                    std::to_string(options.seed) + ")",
            passes);

    TrainedQuantizer trained;
    Stopwatch watch;
    if (method.stock) {
        // One search of the quantizer per pass.
        quantizer.after_search = [&] { progress.add(1); };
        faiss::Clustering clustering(static_cast<int>(d), k, cp);
        clustering.train(n, x, quantizer);
        trained.seconds = watch.seconds();
        trained.centroids = clustering.centroids;
        trained.passes = static_cast<int>(clustering.iteration_stats.size());
        return trained;
    }

    // FAISS's interrupt check is made once per pass.
    OnInterruptCheck per_pass([&] { progress.add(1); });
    if (gmm) {
        GMMClustering clustering(static_cast<int>(d), k, cp);
        clustering.engine = options.engine;
        clustering.gmm.warm_start_niter = options.niter;
        clustering.gmm.em_niter = options.em_niter;
        clustering.gmm.em_tolerance = options.em_tolerance;
        clustering.gmm.covariance = options.covariance;
        clustering.train(n, x, quantizer);
        trained.seconds = watch.seconds();
        trained.passes = static_cast<int>(
                clustering.iteration_stats.size() + clustering.em_stats.size());
        trained.centroids = clustering.centroids;
        trained.variances = clustering.variances;
        trained.mixing_weights = clustering.mixing_weights;
    } else {
        FlashClustering clustering(static_cast<int>(d), k, cp);
        clustering.engine = options.engine;
        clustering.train(n, x, quantizer);
        trained.seconds = watch.seconds();
        trained.passes = static_cast<int>(clustering.iteration_stats.size());
        trained.centroids = clustering.centroids;
        trained.variances = clustering.variances;
        trained.mixing_weights = clustering.mixing_weights;
    }
    progress.update(passes); // EM may have ended early
    return trained;
}

} // namespace faiss_flash
