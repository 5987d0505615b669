#pragma once

// A model and vectors, and everything there is to know about them in double
// precision, by code that shares nothing with the library.

#include <faiss_flash/engine/engine.h>
#include <tests/core_util.h>

namespace test {

using faiss_flash::Metric;
using faiss_flash::Model;

/// A model, vectors and weights, and everything there is to know about them.
struct Problem {
    std::string name;
    Model model;
    Rows rows;
    std::vector<float> weights;    ///< (n) or empty: all 1
    std::vector<double> dist;      ///< ‖x − c‖² (n, k)
    std::vector<double> product;   ///< x·c (n, k)
    std::vector<double> magnitude; ///< Σ_j |x_j c_j| (n, k)
    std::vector<double> norms_x;   ///< ‖x‖² (n)
    std::vector<double> norms_c;   ///< ‖c‖² (k)
    double largest_norm_c = 0;     ///< max ‖c‖²

    size_t n() const {
        return rows.n;
    }
    size_t k() const {
        return model.k;
    }
    size_t d() const {
        return model.d;
    }
    bool l2() const {
        return model.metric == Metric::l2;
    }
    double weight(size_t i) const {
        return weights.empty() ? 1 : weights[i];
    }
    /// (x_ij − μ_cj)²
    double square(size_t i, size_t c, size_t j) const {
        const double step = double(rows.row(i)[j]) - model.means[c * d() + j];
        return step * step;
    }
    /// What the metric compares, with the sign that makes small good.
    double cost(size_t i, size_t c) const {
        const size_t at = i * k() + c;
        return l2() ? dist[at] : -product[at];
    }
    /// How much worse than the best a chosen centroid may be. Single-precision
    /// scores of centred vectors round their terms, which are at most
    /// ‖x‖² + ‖c‖² for distances and ‖x‖‖c‖ for products; below 2⁻¹⁴⁹ per
    /// product of two coordinates there is no precision left.
    double gap_bound(size_t i, size_t c) const {
        const double terms = l2() ? norms_x[i] + norms_c[c]
                                  : 2 * std::sqrt(norms_x[i] * largest_norm_c);
        return std::ldexp(terms, -22) + std::ldexp(2 * d() + 4, -149);
    }
    /// Error of a single-precision sum of d products over four lanes and two
    /// partial sums: d/8 additions in each, up to 7 left over, and a few to
    /// join them, each rounding by 2⁻²⁴ of what it adds up. On one lane there
    /// are more additions, but then their roundings cancel.
    double float_error() const {
        return std::ldexp(d() / 8.0 + 16, -24);
    }
    double value_bound(size_t i, size_t c) const {
        const size_t at = i * k() + c;
        return float_error() * (l2() ? dist[at] : magnitude[at]) +
                std::ldexp(d(), -149);
    }
    double dist_bound(size_t i, size_t c) const {
        return float_error() * dist[i * k() + c] + std::ldexp(d(), -149);
    }
};

inline Problem make_problem(
        std::string name,
        Model model,
        Rows rows,
        std::vector<float> weights = {}) {
    Problem p;
    p.name = std::move(name);
    p.model = std::move(model);
    p.rows = std::move(rows);
    p.weights = std::move(weights);
    const size_t n = p.n(), k = p.k(), d = p.d();
    p.dist.resize(n * k);
    p.product.resize(n * k);
    p.magnitude.resize(n * k);
    p.norms_x.resize(n);
    p.norms_c.resize(k);
    for (size_t i = 0; i < n; i++) {
        const float* x = p.rows.row(i);
        for (size_t j = 0; j < d; j++) {
            p.norms_x[i] += double(x[j]) * x[j];
        }
        for (size_t c = 0; c < k; c++) {
            const float* mean = p.model.means.data() + c * d;
            double dist = 0, product = 0, magnitude = 0;
            for (size_t j = 0; j < d; j++) {
                const double a = x[j], b = mean[j];
                dist += (a - b) * (a - b);
                product += a * b;
                magnitude += std::abs(a * b);
            }
            p.dist[i * k + c] = dist;
            p.product[i * k + c] = product;
            p.magnitude[i * k + c] = magnitude;
        }
    }
    for (size_t c = 0; c < k; c++) {
        for (size_t j = 0; j < d; j++) {
            const double value = p.model.means[c * d + j];
            p.norms_c[c] += value * value;
        }
        p.largest_norm_c = std::max(p.largest_norm_c, p.norms_c[c]);
    }
    return p;
}

/// Centroids as a k-means model.
inline Model centroid_model(const Rows& centroids, Metric metric = Metric::l2) {
    Model model;
    model.k = centroids.n;
    model.d = centroids.d;
    model.metric = metric;
    model.means = centroids.x;
    return model;
}

/// The problem's centroids as a mixture: variances around `scale` times the
/// mean squared distance per dimension of a vector to its nearest centroid,
/// a factor of 4 between the extremes; uneven weights.
inline Problem as_mixture(Problem p, double scale, uint32_t seed) {
    double nearest = 0;
    for (size_t i = 0; i < p.n(); i++) {
        const double* dist = p.dist.data() + i * p.k();
        nearest += *std::min_element(dist, dist + p.k());
    }
    const double variance = std::max(scale * nearest / (p.n() * p.d()), 1e-30);
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(0.25, 1);
    p.model.variances.resize(p.k());
    p.model.weights.resize(p.k());
    double total = 0;
    for (size_t c = 0; c < p.k(); c++) {
        p.model.variances[c] = float(variance * 2 * uniform(random));
        p.model.weights[c] = float(uniform(random));
        total += p.model.weights[c];
    }
    for (float& weight : p.model.weights) {
        weight = float(weight / total);
    }
    return p;
}

/// A mixture with one variance per dimension: those it has, times up to
/// `ratio` or divided by it; the same for all components where `tied`.
inline Problem as_diagonal(
        Problem p,
        uint32_t seed,
        bool tied = false,
        double ratio = 4) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    p.name += tied ? ", tied diagonal" : ", diagonal";
    p.model.make_diagonal();
    const size_t d = p.d();
    for (size_t i = 0; i < p.model.variances.size(); i++) {
        float& variance = p.model.variances[i];
        variance = tied && i >= d
                ? p.model.variances[i % d]
                : float(variance * std::pow(ratio, uniform(random)));
    }
    return p;
}

} // namespace test
