#pragma once

// Expectation maximisation for an isotropic mixture as one would write it
// down: double precision, all pairs, no code of the library.

#include <tests/core_util.h>

namespace test {

struct PlainEM {
    size_t k = 0, d = 0;
    std::vector<double> means, variances, shares;
    bool shared = false;    ///< one variance for all components
    bool spherical = false; ///< means of length 1
    double floor = 0;       ///< smallest variance
    size_t frozen = 0;      ///< means that do not move

    PlainEM(const std::vector<float>& given, size_t k_, size_t d_)
            : k(k_),
              d(d_),
              means(given.begin(), given.end()) {}

    double dist(const float* x, size_t c) const {
        double sum = 0;
        for (size_t j = 0; j < d; j++) {
            sum += (x[j] - means[c * d + j]) * (x[j] - means[c * d + j]);
        }
        return sum;
    }

    void normalise() {
        for (size_t c = 0; c < k; c++) {
            double norm2 = 0;
            for (size_t j = 0; j < d; j++) {
                norm2 += means[c * d + j] * means[c * d + j];
            }
            for (size_t j = 0; j < d; j++) {
                means[c * d + j] /= std::sqrt(norm2);
            }
        }
    }

    /// Variances and shares of the clusters around the means as they are;
    /// then, where `move`, one step of k-means.
    void hard_pass(const Rows& rows, const std::vector<float>& w, bool move) {
        std::vector<double> sums(k * d), counts(k);
        double energy = 0, total = 0;
        for (size_t i = 0; i < rows.n; i++) {
            size_t best = 0;
            for (size_t c = 1; c < k; c++) {
                best = dist(rows.row(i), c) < dist(rows.row(i), best) ? c
                                                                      : best;
            }
            const double weight = w.empty() ? 1 : w[i];
            counts[best] += weight;
            total += weight;
            energy += weight * dist(rows.row(i), best);
            for (size_t j = 0; j < d; j++) {
                sums[best * d + j] += weight * rows.row(i)[j];
            }
        }
        variances.assign(k, energy / (d * total));
        shares.resize(k);
        for (size_t c = 0; c < k; c++) {
            shares[c] = counts[c] / total;
            for (size_t j = c * d; move && c >= frozen && j < (c + 1) * d;
                 j++) {
                means[j] = sums[j] / counts[c];
            }
        }
        if (spherical) {
            normalise();
        }
    }

    /// Log-likelihood per weight of the model, responsibilities into r.
    double expectation(
            const Rows& rows,
            const std::vector<float>& w,
            std::vector<double>& r) const {
        const double two_pi = 2 * std::acos(-1.0);
        double sum = 0, total = 0;
        r.resize(rows.n * k);
        for (size_t i = 0; i < rows.n; i++) {
            double* ri = r.data() + i * k;
            for (size_t c = 0; c < k; c++) {
                ri[c] = std::log(shares[c]) -
                        0.5 * d * std::log(two_pi * variances[c]) -
                        dist(rows.row(i), c) / (2 * variances[c]);
            }
            const double top = *std::max_element(ri, ri + k);
            double evidence = 0;
            for (size_t c = 0; c < k; c++) {
                evidence += std::exp(ri[c] - top);
            }
            const double log_p = top + std::log(evidence);
            for (size_t c = 0; c < k; c++) {
                ri[c] = std::exp(ri[c] - log_p);
            }
            const double weight = w.empty() ? 1 : w[i];
            sum += weight * log_p;
            total += weight;
        }
        return sum / total;
    }

    double log_likelihood(const Rows& rows, const std::vector<float>& w = {})
            const {
        std::vector<double> r;
        return expectation(rows, w, r);
    }

    /// One pass; returns the log-likelihood of the model before it.
    double pass(const Rows& rows, const std::vector<float>& w = {}) {
        std::vector<double> r;
        const double likelihood = expectation(rows, w, r);
        std::vector<double> counts(k), energy(k);
        double total = 0;
        for (size_t c = 0; c < k; c++) {
            std::vector<double> sums(d);
            for (size_t i = 0; i < rows.n; i++) {
                const double share = r[i * k + c] * (w.empty() ? 1 : w[i]);
                counts[c] += share;
                for (size_t j = 0; j < d; j++) {
                    sums[j] += share * rows.row(i)[j];
                }
            }
            for (size_t j = 0; j < d && c >= frozen; j++) {
                means[c * d + j] = sums[j] / counts[c];
            }
            total += counts[c];
        }
        if (spherical) {
            normalise();
        }
        for (size_t c = 0; c < k; c++) {
            for (size_t i = 0; i < rows.n; i++) {
                energy[c] += r[i * k + c] * (w.empty() ? 1 : w[i]) *
                        dist(rows.row(i), c);
            }
        }
        double all = 0;
        for (const double e : energy) {
            all += e;
        }
        for (size_t c = 0; c < k; c++) {
            variances[c] = std::max(
                    shared ? all / (d * total) : energy[c] / (d * counts[c]),
                    floor);
            shares[c] = counts[c] / total;
        }
        return likelihood;
    }
};

} // namespace test
