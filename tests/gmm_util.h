#pragma once

// Fitting mixtures, and what every fitted mixture must be.

#include <faiss_flash/GMMClustering.h>
#include <tests/clustering_util.h>

namespace test {

using faiss_flash::Covariance;
using faiss_flash::EMStats;
using faiss_flash::GMMClustering;
using faiss_flash::GMMParameters;

/// A fitted mixture; `t.given` or rows for a start.
struct Fit {
    Training t;
    faiss::ClusteringParameters cp = parameters(0);
    GMMParameters gmm;
    faiss::MetricType metric = faiss::METRIC_L2;

    GMMClustering run(int k) const {
        GMMClustering clustering(t.rows.d, k, cp, gmm);
        faiss::IndexFlat index(t.rows.d, metric);
        train_on(clustering, t, index);
        CHECK(vectors_of(index) == clustering.centroids);
        return clustering;
    }
};

/// Starts on the first k rows.
inline Fit fit_of(const Rows& rows, size_t k, int warm_start, int passes) {
    Fit fit;
    fit.t.rows = rows;
    fit.t.given.assign(rows.x.begin(), rows.x.begin() + k * rows.d);
    fit.gmm.warm_start_niter = warm_start;
    fit.gmm.em_niter = passes;
    fit.gmm.em_tolerance = 0;
    return fit;
}

/// The rounding of a log-likelihood per vector. Distances in single
/// precision are off by 2⁻²² or so of themselves, and d/2 nats of a density
/// are distance; over many vectors the errors cancel.
inline double likelihood_tolerance(size_t d) {
    return 1e-6 + 1e-7 * d;
}

inline void check_never_falls(const std::vector<EMStats>& stats, size_t d) {
    for (size_t i = 1; i < stats.size(); i++) {
        if (stats[i - 1].nreseed == 0) {
            INFO("pass " << i);
            CHECK(stats[i].log_likelihood >=
                  stats[i - 1].log_likelihood - likelihood_tolerance(d));
        }
    }
}

const Covariance all_covariances[] = {
        Covariance::spherical,
        Covariance::tied_spherical,
        Covariance::diag,
        Covariance::tied_diag};

inline void check_sound(const GMMClustering& c) {
    CHECK(all_finite(c.centroids));
    CHECK(all_finite(c.variances));
    CHECK(all_finite(c.mixing_weights));
    const size_t per = is_diagonal(c.gmm.covariance) ? c.d : 1;
    REQUIRE(c.variances.size() == c.k * per);
    for (size_t i = 0; i < c.k * per; i++) {
        CHECK(c.variances[i] > 0);
        if (is_tied(c.gmm.covariance)) {
            CHECK(c.variances[i] == c.variances[i % per]);
        }
    }
    double total = 0;
    for (size_t i = 0; i < c.k; i++) {
        CHECK(c.mixing_weights[i] >= 0);
        total += c.mixing_weights[i];
    }
    CHECK(std::abs(total - 1) <= 1e-5);
    double time = 0;
    for (const EMStats& s : c.em_stats) {
        CHECK(std::isfinite(s.log_likelihood));
        CHECK(s.time >= time);
        time = s.time;
        CHECK(s.entries_per_vector >= 1);
        CHECK(s.entries_per_vector <= c.k);
        CHECK(s.dropped_mass >= 0);
        CHECK(s.dropped_mass <= 1e-6);
        CHECK(s.nreseed >= 0);
    }
}

} // namespace test
