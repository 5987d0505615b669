// GMMClustering beside a plain EM in double precision, and the properties
// that EM has.

#include <tests/gmm_oracle.h>
#include <tests/gmm_util.h>

using namespace test;

namespace {

/// Plain EM from the same start.
PlainEM plain_em(const Fit& fit, size_t k) {
    PlainEM plain(fit.t.given, k, fit.t.rows.d);
    plain.diagonal = is_diagonal(fit.gmm.covariance);
    plain.tied = is_tied(fit.gmm.covariance);
    return plain;
}

/// Variance of the vectors, in each dimension or (per = 1) on average.
std::vector<double> spread_of(const Rows& rows, size_t per) {
    std::vector<double> spread(per);
    for (size_t j = 0; j < rows.d; j++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < rows.n; i++) {
            sum += rows.row(i)[j];
            squares += std::pow(rows.row(i)[j], 2);
        }
        sum /= rows.n;
        spread[j % per] += (squares / rows.n - sum * sum) * per / rows.d;
    }
    return spread;
}

/// Model and log-likelihood after every number of passes up to `passes`.
void check_against_plain_em(const Fit& fit, PlainEM plain, int passes) {
    const size_t k = plain.k, d = plain.d;
    for (int i = 0; i < std::max(fit.gmm.warm_start_niter, 1); i++) {
        plain.hard_pass(
                fit.t.rows, fit.t.weights, fit.gmm.warm_start_niter > 0);
    }
    plain.floor_fraction = fit.gmm.variance_floor;
    const std::vector<double> spread = spread_of(fit.t.rows, plain.per());
    std::vector<double> likelihoods;
    Worst mean, variance, share, likelihood;
    for (int p = 1; p <= passes; p++) {
        likelihoods.push_back(plain.pass(fit.t.rows, fit.t.weights));
        Fit upto = fit;
        upto.gmm.em_niter = p;
        const GMMClustering ours = upto.run(k);
        check_sound(ours);
        REQUIRE(ours.em_stats.size() == (size_t)p);
        CHECK(ours.em_stats.back().nreseed == 0);
        CHECK(ours.iteration_stats.size() == (size_t)fit.gmm.warm_start_niter);
        for (int i = 0; i < p; i++) {
            likelihood.see(
                    std::abs(ours.em_stats[i].log_likelihood - likelihoods[i]),
                    likelihood_tolerance(d),
                    p,
                    i);
        }
        const size_t per = plain.per();
        REQUIRE(ours.variances.size() == k * per);
        for (size_t j = 0; j < k * d; j++) {
            const double sigma =
                    std::sqrt(plain.variances[j / d * per + j % per]);
            mean.see(
                    std::abs(ours.centroids[j] - plain.means[j]),
                    1e-4 * sigma + 1e-7 * std::abs(plain.means[j]),
                    p,
                    j);
        }
        for (size_t j = 0; j < k * per; j++) {
            // what a pass leaves out, 1e-6 of a vector, may lie far away
            variance.see(
                    std::abs(ours.variances[j] - plain.variances[j]),
                    1e-4 * plain.variances[j] + 1e-6 * k * spread[j % per],
                    p,
                    j);
        }
        for (size_t c = 0; c < k; c++) {
            share.see(
                    std::abs(ours.mixing_weights[c] - plain.shares[c]),
                    1e-5,
                    p,
                    c);
        }
    }
    CHECK_WORST(mean);
    CHECK_WORST(variance);
    CHECK_WORST(share);
    CHECK_WORST(likelihood);
    CHECK(likelihoods.back() > likelihoods.front()); // there was work to do
}

} // namespace

TEST_CASE(
        "a mixture is what plain EM makes of it, pass by pass",
        "[per_engine]") {
    const Rows overlapping = blob_rows(400, 5, 6, 1.2, 11);
    const Rows real = real_rows(200);
    for (const int warm_start : {0, 3}) {
        for (const Covariance covariance : all_covariances) {
            INFO("warm start " << warm_start << ", " << to_string(covariance));
            Fit fit = fit_of(overlapping, 6, warm_start, 1);
            fit.gmm.covariance = covariance;
            PlainEM plain = plain_em(fit, 6);
            check_against_plain_em(fit, plain, 8);

            fit.t.weights = random_weights(400, 12);
            check_against_plain_em(fit, plain, 4);

            Fit large = fit_of(real, 5, warm_start, 1);
            large.gmm.covariance = covariance;
            check_against_plain_em(large, plain_em(large, 5), 3);
        }
    }
}

TEST_CASE("frozen and spherical means follow plain EM", "[per_engine]") {
    Rows rows = blob_rows(300, 6, 5, 1.5, 21);
    {
        Fit fit = fit_of(rows, 5, 2, 1);
        fit.cp.frozen_centroids = true;
        fit.t.given.resize(2 * 6);
        GMMClustering start = [&] {
            Fit none = fit;
            none.cp.frozen_centroids = false;
            return none.run(5);
        }();
        REQUIRE(start.centroids.size() == 30);
        // all frozen: only variances and weights are fitted
        fit.t.given.assign(rows.x.begin(), rows.x.begin() + 30);
        for (const Covariance covariance : all_covariances) {
            fit.gmm.covariance = covariance;
            PlainEM plain = plain_em(fit, 5);
            plain.frozen = 5;
            check_against_plain_em(fit, plain, 4);
        }
        CHECK(same_bytes(fit.run(5).centroids, fit.t.given));
        // some frozen
        fit.t.given.resize(12);
        const GMMClustering some = fit.run(5);
        CHECK(std::equal(
                fit.t.given.begin(),
                fit.t.given.end(),
                some.centroids.begin()));
    }
    {
        for (size_t i = 0; i < rows.n; i++) {
            double norm2 = 0;
            for (size_t j = 0; j < 6; j++) {
                norm2 += double(rows.row(i)[j]) * rows.row(i)[j];
            }
            for (size_t j = 0; j < 6; j++) {
                rows.x[i * 6 + j] /= std::sqrt(norm2);
            }
        }
        Fit fit = fit_of(rows, 5, 2, 1);
        fit.cp.spherical = true;
        for (const Covariance covariance : all_covariances) {
            fit.gmm.covariance = covariance;
            PlainEM plain = plain_em(fit, 5);
            plain.spherical = true;
            check_against_plain_em(fit, plain, 5);
        }
        fit.gmm.covariance = Covariance::tied_spherical;
        fit.metric = faiss::METRIC_INNER_PRODUCT; // fitted in L2 all the same
        fit.gmm.em_niter = 20;
        const GMMClustering ours = fit.run(5);
        check_never_falls(ours.em_stats, 6);
        for (size_t c = 0; c < 5; c++) {
            double norm2 = 0;
            for (size_t j = 0; j < 6; j++) {
                norm2 += std::pow(ours.centroids[c * 6 + j], 2);
            }
            CHECK(std::abs(norm2 - 1) <= 1e-6);
        }
    }
}

TEST_CASE("the log-likelihood never falls between re-seeds", "[per_engine]") {
    const auto check = [](Fit fit, int k) {
        for (const Covariance covariance : all_covariances) {
            INFO(to_string(covariance));
            fit.gmm.covariance = covariance;
            const GMMClustering ours = fit.run(k);
            check_sound(ours);
            CHECK(ours.em_stats.size() >= 3);
            check_never_falls(ours.em_stats, fit.t.rows.d);
            // and what is reported is the likelihood of the model
            PlainEM model = plain_em(fit, k);
            model.means.assign(ours.centroids.begin(), ours.centroids.end());
            model.variances.assign(
                    ours.variances.begin(), ours.variances.end());
            model.shares.assign(
                    ours.mixing_weights.begin(), ours.mixing_weights.end());
            CHECK(model.log_likelihood(fit.t.rows, fit.t.weights) >=
                  ours.em_stats.back().log_likelihood -
                          likelihood_tolerance(fit.t.rows.d));
        }
    };
    SECTION("real vectors") {
        check(fit_of(real_rows(1500), 16, 4, 25), 16);
    }
    SECTION("real vectors from random rows, weights") {
        Fit fit = fit_of(real_rows(1000), 16, 1, 25);
        fit.t.given.clear();
        fit.t.weights = random_weights(1000, 31);
        check(fit, 16);
    }
    SECTION("more components than blobs") {
        check(fit_of(blob_rows(500, 3, 4, 5, 32), 20, 3, 60), 20);
    }
    SECTION("far from the origin") {
        check(fit_of(normal_rows(500, 8, 33, 1, 1000), 10, 2, 40), 10);
    }
    SECTION("whole-number means") {
        Fit fit = fit_of(real_rows(800), 8, 3, 20);
        fit.cp.int_centroids = true;
        check(fit, 8);
        for (const float value : fit.run(8).centroids) {
            CHECK(value == std::round(value));
        }
    }
}

TEST_CASE("a mixture that vectors were drawn from is found again") {
    // two components in three dimensions, 20000 vectors
    const double means[2][3] = {{0, 0, 0}, {6, -2, 1}};
    const double sigmas[2] = {1.5, 0.5}, shares[2] = {0.3, 0.7};
    Rows rows{20000, 3, std::vector<float>(60000)};
    std::mt19937 random(41);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    for (size_t i = 0; i < rows.n; i++) {
        const int c = uniform(random) < shares[0] ? 0 : 1;
        for (size_t j = 0; j < 3; j++) {
            rows.x[i * 3 + j] = float(means[c][j] + sigmas[c] * normal(random));
        }
    }
    Fit fit;
    fit.t.rows = rows;
    fit.cp.max_points_per_centroid = 10000;
    const GMMClustering ours = fit.run(2);
    const int first = ours.centroids[0] < 3 ? 0 : 1;
    for (int c = 0; c < 2; c++) {
        const size_t at = c == 0 ? first : 1 - first;
        const double n = shares[c] * rows.n;
        // five standard errors
        for (size_t j = 0; j < 3; j++) {
            CHECK(std::abs(ours.centroids[at * 3 + j] - means[c][j]) <=
                  5 * sigmas[c] / std::sqrt(n));
        }
        CHECK(std::abs(std::sqrt(ours.variances[at]) - sigmas[c]) <=
              5 * sigmas[c] / std::sqrt(6 * n));
        CHECK(std::abs(ours.mixing_weights[at] - shares[c]) <=
              5 * std::sqrt(shares[0] * shares[1] / rows.n));
    }
}

TEST_CASE("one component is mean and variance", "[per_engine]") {
    const Rows rows = normal_rows(250, 7, 51, 2, 30);
    Fit fit = fit_of(rows, 1, 0, 3);
    const GMMClustering ours = fit.run(1);
    double squares = 0;
    for (size_t j = 0; j < 7; j++) {
        double sum = 0;
        for (size_t i = 0; i < rows.n; i++) {
            sum += rows.row(i)[j];
        }
        CHECK(relative_gap(ours.centroids[j], sum / rows.n) <= 1e-6);
        for (size_t i = 0; i < rows.n; i++) {
            squares += std::pow(rows.row(i)[j] - sum / rows.n, 2);
        }
    }
    const double variance = squares / (rows.n * 7);
    CHECK(relative_gap(ours.variances[0], variance) <= 1e-5);
    CHECK(ours.mixing_weights[0] == 1);
    CHECK(relative_gap(
                  ours.em_stats.back().log_likelihood,
                  -3.5 * (std::log(2 * std::acos(-1.0) * variance) + 1)) <=
          1e-5);
    CHECK(ours.em_stats.back().dropped_mass == 0);
}

TEST_CASE(
        "whole-number weights are vectors counted several times",
        "[per_engine]") {
    const Rows rows = blob_rows(250, 4, 5, 1.5, 61);
    Fit weighted = fit_of(rows, 5, 3, 10);
    Fit repeated = weighted;
    repeated.t.rows = Rows{0, 4, {}};
    for (size_t i = 0; i < rows.n; i++) {
        const int times = i % 4;
        weighted.t.weights.push_back(float(times));
        for (int t = 0; t < times; t++) {
            repeated.t.rows.x.insert(
                    repeated.t.rows.x.end(), rows.row(i), rows.row(i) + 4);
            repeated.t.rows.n++;
        }
    }
    const GMMClustering a = weighted.run(5), b = repeated.run(5);
    REQUIRE(a.em_stats.size() == b.em_stats.size());
    CHECK(std::abs(
                  a.em_stats.back().log_likelihood -
                  b.em_stats.back().log_likelihood) <= likelihood_tolerance(4));
    for (size_t j = 0; j < a.centroids.size(); j++) {
        CHECK(std::abs(a.centroids[j] - b.centroids[j]) <= 1e-4);
    }
    for (size_t c = 0; c < 5; c++) {
        CHECK(relative_gap(a.variances[c], b.variances[c]) <= 1e-4);
        CHECK(std::abs(a.mixing_weights[c] - b.mixing_weights[c]) <= 1e-5);
    }
    // and a common factor changes nothing but rounding
    Fit scaled = weighted;
    for (float& w : scaled.t.weights) {
        w *= 1e-3f;
    }
    const GMMClustering c = scaled.run(5);
    CHECK(std::abs(
                  a.em_stats.back().log_likelihood -
                  c.em_stats.back().log_likelihood) <= likelihood_tolerance(4));
}

TEST_CASE("a variance stays above its floor", "[per_engine]") {
    // fifty equal vectors and a broad cluster elsewhere
    Rows rows = normal_rows(250, 3, 71, 1, 20);
    for (size_t i = 0; i < 50; i++) {
        std::fill_n(rows.x.begin() + i * 3, 3, 0.0f);
    }
    std::copy_n(rows.row(200), 3, rows.x.begin() + 3);
    Fit fit = fit_of(rows, 2, 4, 12);
    for (const double floor : {1e-3, 0.25}) {
        fit.gmm.variance_floor = floor;
        const GMMClustering ours = fit.run(2);
        check_sound(ours);
        check_never_falls(ours.em_stats, 3);
        PlainEM plain(fit.t.given, 2, 3);
        for (int i = 0; i < 4; i++) {
            plain.hard_pass(rows, {}, true);
        }
        CHECK(relative_gap(ours.variances[0], floor * plain.variances[0]) <=
              1e-4);
        CHECK(ours.variances[1] > ours.variances[0]);
    }
}

TEST_CASE("nredo keeps the best log-likelihood", "[per_engine]") {
    const Rows rows = blob_rows(400, 3, 12, 3, 101);
    std::vector<double> best;
    std::vector<size_t> passes;
    for (const int nredo : {1, 2, 3, 4, 5}) {
        Fit fit;
        fit.t.rows = rows;
        fit.gmm.warm_start_niter = 1;
        fit.gmm.em_niter = 6;
        fit.gmm.em_tolerance = 0;
        fit.cp.nredo = nredo;
        const GMMClustering ours = fit.run(12);
        best.push_back(ours.em_stats.back().log_likelihood);
        passes.push_back(ours.em_stats.size());
        CHECK(ours.em_stats.size() == 6 * ours.iteration_stats.size());
    }
    CHECK(std::is_sorted(best.begin(), best.end()));
    CHECK(best.back() > best.front()); // some attempt was better
    CHECK(passes.front() == 6);
    CHECK(passes.back() > 6); // and has the earlier ones before it
}

TEST_CASE(
        "training stops when a pass gains less than em_tolerance",
        "[per_engine]") {
    const Rows rows = blob_rows(500, 4, 6, 2, 111);
    size_t before = 1000;
    for (const double tolerance : {1e-5, 1e-3, 1e-1}) {
        Fit fit = fit_of(rows, 6, 2, 500);
        fit.gmm.em_tolerance = tolerance;
        const auto stats = fit.run(6).em_stats;
        REQUIRE(stats.size() >= 2);
        CHECK(stats.size() < 500);
        CHECK(stats.size() <= before);
        before = stats.size();
        for (size_t i = 1; i < stats.size(); i++) {
            const double gain =
                    stats[i].log_likelihood - stats[i - 1].log_likelihood;
            const bool stops = gain < tolerance && stats[i - 1].nreseed == 0;
            CHECK(stops == (i + 1 == stats.size()));
        }
    }
}
