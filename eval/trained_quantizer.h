#pragma once

#include <map>
#include <string>
#include <vector>

#include <faiss/impl/ProductQuantizer.h>

#include <eval/methods.h>

namespace faiss_flash {

/// Options of training, the same for every method.
struct TrainingOptions {
    size_t nlist = 0;
    /// of the index; every method trains for it as FAISS's index would
    faiss::MetricType metric = faiss::METRIC_L2;
    int niter = 10; ///< k-means passes; for gmm those of its warm start
    int em_niter = 90;
    double em_tolerance = 1e-4;
    Covariance covariance = Covariance::spherical;
    int max_points_per_centroid = 256;
    int seed = 1234;
    std::string engine = "auto";
};

/// A product quantizer and what its training took.
struct TrainedPQ {
    faiss::ProductQuantizer pq;
    double seconds = 0;
};

/// Trained centroids, which every policy and codec of a trainer shares.
struct TrainedQuantizer {
    std::vector<float> centroids; ///< (nlist, d)
    /// of the mixture, (nlist), or (nlist, d) if diagonal; empty for stock
    /// FAISS
    std::vector<float> variances;
    std::vector<float> mixing_weights; ///< (nlist)
    double seconds = 0;
    int passes = 0; ///< over the training vectors that were really run
    /// by storage name, filled as they are trained; see build_index()
    std::map<std::string, TrainedPQ> product_quantizers;
};

/// Run the method's trainer (its rule does not matter) on x (n, d), with a
/// progress bar.
TrainedQuantizer train_quantizer(
        const Method& method,
        const TrainingOptions& options,
        size_t n,
        size_t d,
        const float* x);

} // namespace faiss_flash
