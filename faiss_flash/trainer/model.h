#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace faiss_flash {

/// What "nearest" means to a model.
enum class Metric {
    l2,           ///< smallest ‖x − c‖²
    inner_product ///< largest x·c
};

/// What the covariances of a mixture may be. A spherical one is σ²_k I, a
/// diagonal one diag(σ²_k1, ..., σ²_kd); all components have one covariance
/// where it is tied.
enum class Covariance { spherical, tied_spherical, diag, tied_diag };

/// The enumerator's own name.
const char* to_string(Covariance covariance);
/// Inverse of to_string; throws on an unknown name.
Covariance covariance_by_name(const std::string& name);

bool is_diagonal(Covariance covariance);
bool is_tied(Covariance covariance);

/// K centroids, and for a mixture what makes them a density.
///
/// As a Gaussian mixture in d dimensions, whatever the metric is,
///   log p(x, k) = log π_k − ½ Σ_j [log(2π σ²_kj) + (x_j − μ_kj)² / σ²_kj].
/// A spherical component has one variance, σ²_kj = σ²_k, a diagonal one d.
struct Model {
    size_t k = 0;
    size_t d = 0;
    Metric metric = Metric::l2;
    std::vector<float> means; ///< μ, (k, d) row-major
    /// σ², (k) spherical or (k, d) diagonal; empty: k-means
    std::vector<float> variances;
    std::vector<float> weights; ///< π, (k), sums to 1, empty: k-means

    bool is_mixture() const {
        return !variances.empty();
    }
    /// In one dimension spherical and diagonal are the same, and this false.
    bool is_diagonal() const {
        return variances.size() > k;
    }
    /// 1 or d
    size_t variances_per_component() const {
        return is_diagonal() ? d : 1;
    }
    /// d or 1
    size_t dimensions_per_variance() const {
        return is_diagonal() ? 1 : d;
    }
    /// Write spherical variances as diagonal ones.
    void make_diagonal();
};

/// Whether `count` variances go with k centroids in d dimensions.
bool is_variance_count(size_t count, size_t k, size_t d);

/// The part of log p(x, k) that does not depend on x,
/// log π_k − ½ Σ_j log(2π σ²_kj), for every component; (k).
std::vector<double> log_scales(const Model& model);

/// 1 / (2σ²) of every variance
std::vector<float> half_precisions(const Model& model);

} // namespace faiss_flash
