#pragma once

// Expectation maximisation for mixtures as one would write it down: double
// precision, all pairs, no code of the library.

#include <numeric>

#include <tests/core_util.h>

namespace test {

struct PlainEM {
    size_t k = 0, d = 0;
    std::vector<double> means, variances, shares;
    bool tied = false;          ///< the same variances for all components
    bool diagonal = false;      ///< one variance per dimension
    bool spherical = false;     ///< means of length 1
    double floor_fraction = 0;  ///< smallest variance, of those at the start
    std::vector<double> floors; ///< those, after the first pass
    size_t frozen = 0;          ///< means that do not move

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

    /// Variances of one component.
    size_t per() const {
        return diagonal ? d : 1;
    }

    double square(const float* x, size_t c, size_t j) const {
        return (x[j] - means[c * d + j]) * (x[j] - means[c * d + j]);
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
        variances.assign(k * per(), energy / (d * total));
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
                ri[c] = std::log(shares[c]);
                for (size_t j = 0; j < d; j++) {
                    const double variance = variances[c * per() + j % per()];
                    ri[c] -= 0.5 * std::log(two_pi * variance) +
                            square(rows.row(i), c, j) / (2 * variance);
                }
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

    /// Σ r (x − μ)² per component, or per component and dimension.
    std::vector<double> energies(
            const Rows& rows,
            const std::vector<float>& w,
            const std::vector<double>& r) const {
        std::vector<double> energy(k * per());
        for (size_t i = 0; i < rows.n; i++) {
            for (size_t c = 0; c < k; c++) {
                const double share = r[i * k + c] * (w.empty() ? 1 : w[i]);
                for (size_t j = 0; j < d; j++) {
                    energy[c * per() + j % per()] +=
                            share * square(rows.row(i), c, j);
                }
            }
        }
        return energy;
    }

    /// Of the variances at the start, all the same; with diagonal covariances
    /// of each dimension's, but that one without variance counts a little.
    void set_floors(const std::vector<double>& energy, double total) {
        floors.assign(per(), floor_fraction * variances[0]);
        if (diagonal) {
            std::vector<double> each(d);
            double all = 0;
            for (size_t i = 0; i < energy.size(); i++) {
                each[i % d] += energy[i] / total;
                all += energy[i] / total;
            }
            for (size_t j = 0; j < d; j++) {
                floors[j] = floor_fraction * std::max(each[j], 1e-3 * all / d);
                floors[j] = std::min(floors[j], variances[0]);
            }
        }
    }

    /// One pass; returns the log-likelihood of the model before it.
    double pass(const Rows& rows, const std::vector<float>& w = {}) {
        std::vector<double> r;
        const double likelihood = expectation(rows, w, r);
        if (floors.empty()) {
            set_floors(
                    energies(rows, w, r),
                    w.empty() ? rows.n
                              : std::accumulate(w.begin(), w.end(), 0.0));
        }
        std::vector<double> counts(k);
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
        const std::vector<double> energy = energies(rows, w, r);
        std::vector<double> all(per());
        for (size_t i = 0; i < energy.size(); i++) {
            all[i % per()] += energy[i];
        }
        for (size_t i = 0; i < energy.size(); i++) {
            const double variance = tied ? all[i % per()] / total
                                         : energy[i] / counts[i / per()];
            variances[i] =
                    std::max(variance / (diagonal ? 1 : d), floors[i % per()]);
        }
        for (size_t c = 0; c < k; c++) {
            shares[c] = counts[c] / total;
        }
        return likelihood;
    }
};

} // namespace test
