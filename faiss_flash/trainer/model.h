#pragma once

#include <cstddef>
#include <vector>

namespace faiss_flash {

/// What "nearest" means to a model.
enum class Metric {
    l2,           ///< smallest ‖x − c‖²
    inner_product ///< largest x·c
};

/// K centroids, and for a mixture what makes them a density.
///
/// As an isotropic Gaussian mixture in d dimensions,
///   log p(x, k) = log π_k − (d/2) log(2π σ²_k) − ‖x − μ_k‖² / (2 σ²_k),
/// whatever the metric is.
struct Model {
    size_t k = 0;
    size_t d = 0;
    Metric metric = Metric::l2;
    std::vector<float> means;     ///< μ, (k, d) row-major
    std::vector<float> variances; ///< σ² per dimension, (k), empty: k-means
    std::vector<float> weights;   ///< π, (k), sums to 1, empty: k-means

    bool is_mixture() const {
        return !variances.empty();
    }
};

/// The part of log p(x, k) that does not depend on x,
/// log π_k − (d/2) log(2π σ²_k), for every component; (k).
std::vector<double> log_scales(const Model& model);

} // namespace faiss_flash
