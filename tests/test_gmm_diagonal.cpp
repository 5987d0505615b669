// Diagonal covariances: what they find that spherical ones do not.

#include <map>

#include <tests/gmm_util.h>

using namespace test;

namespace {

double last_likelihood(const GMMClustering& c) {
    return c.em_stats.back().log_likelihood;
}

/// Two components in three dimensions.
struct TwoComponents {
    double means[2][3] = {{0, 0, 0}, {6, -2, 1}};
    double sigmas[2][3] = {{1.5, 0.1, 4}, {0.5, 2, 0.02}};
    double shares[2] = {0.3, 0.7};

    Rows draw(size_t n, uint32_t seed) const {
        Rows rows{n, 3, std::vector<float>(3 * n)};
        std::mt19937 random(seed);
        std::normal_distribution<double> normal;
        std::uniform_real_distribution<double> uniform;
        for (size_t i = 0; i < n; i++) {
            const int c = uniform(random) < shares[0] ? 0 : 1;
            for (size_t j = 0; j < 3; j++) {
                rows.x[i * 3 + j] =
                        float(means[c][j] + sigmas[c][j] * normal(random));
            }
        }
        return rows;
    }
};

} // namespace

TEST_CASE("a diagonal mixture that vectors were drawn from is found again") {
    const TwoComponents truth;
    Fit fit;
    fit.t.rows = truth.draw(20000, 41);
    fit.cp.max_points_per_centroid = 10000;
    fit.gmm.covariance = Covariance::diag;
    fit.gmm.variance_floor = 1e-6;
    fit.gmm.em_tolerance = 1e-9;
    const GMMClustering ours = fit.run(2);
    check_sound(ours);
    check_never_falls(ours.em_stats, 3);
    const int first = ours.centroids[0] < 3 ? 0 : 1;
    for (int c = 0; c < 2; c++) {
        const size_t at = c == 0 ? first : 1 - first;
        const double n = truth.shares[c] * fit.t.rows.n;
        // five standard errors
        for (size_t j = 0; j < 3; j++) {
            const double sigma = truth.sigmas[c][j];
            CHECK(std::abs(ours.centroids[at * 3 + j] - truth.means[c][j]) <=
                  5 * sigma / std::sqrt(n));
            CHECK(std::abs(std::sqrt(ours.variances[at * 3 + j]) - sigma) <=
                  5 * sigma / std::sqrt(2 * n));
        }
        CHECK(std::abs(ours.mixing_weights[at] - truth.shares[c]) <=
              5 * std::sqrt(truth.shares[0] * truth.shares[1] / fit.t.rows.n));
    }
    // a spherical one explains these vectors worse, by the entropies' gap
    fit.gmm.covariance = Covariance::spherical;
    CHECK(last_likelihood(fit.run(2)) < last_likelihood(ours) - 1);
}

TEST_CASE("tied diagonal covariances are found again") {
    // the same deviations in both components
    TwoComponents truth;
    std::copy_n(truth.sigmas[0], 3, truth.sigmas[1]);
    Fit fit;
    fit.t.rows = truth.draw(20000, 42);
    fit.cp.max_points_per_centroid = 10000;
    fit.gmm.covariance = Covariance::tied_diag;
    fit.gmm.em_tolerance = 1e-9;
    const GMMClustering ours = fit.run(2);
    check_sound(ours);
    for (size_t j = 0; j < 3; j++) {
        const double sigma = truth.sigmas[0][j];
        CHECK(std::abs(std::sqrt(ours.variances[j]) - sigma) <=
              5 * sigma / std::sqrt(2 * 20000));
    }
}

TEST_CASE("one diagonal component is mean and variances", "[per_engine]") {
    Rows rows = normal_rows(250, 7, 51, 2, 30);
    for (size_t i = 0; i < rows.n; i++) {
        for (size_t j = 0; j < 7; j++) {
            rows.x[i * 7 + j] *= float(j + 1);
        }
    }
    for (const Covariance covariance :
         {Covariance::diag, Covariance::tied_diag}) {
        Fit fit = fit_of(rows, 1, 0, 3);
        fit.gmm.covariance = covariance;
        const GMMClustering ours = fit.run(1);
        REQUIRE(ours.variances.size() == 7);
        double logs = 0;
        for (size_t j = 0; j < 7; j++) {
            double sum = 0, squares = 0;
            for (size_t i = 0; i < rows.n; i++) {
                sum += rows.row(i)[j];
            }
            CHECK(relative_gap(ours.centroids[j], sum / rows.n) <= 1e-6);
            for (size_t i = 0; i < rows.n; i++) {
                squares += std::pow(rows.row(i)[j] - sum / rows.n, 2);
            }
            CHECK(relative_gap(ours.variances[j], squares / rows.n) <= 1e-5);
            logs += std::log(2 * std::acos(-1.0) * squares / rows.n);
        }
        CHECK(ours.mixing_weights[0] == 1);
        CHECK(relative_gap(last_likelihood(ours), -0.5 * (logs + 7)) <= 1e-5);
    }
}

TEST_CASE("real vectors are likelier with more variances", "[per_engine]") {
    Fit fit = fit_of(real_rows(2000), 16, 4, 15);
    std::map<Covariance, double> likelihood;
    for (const Covariance covariance : all_covariances) {
        fit.gmm.covariance = covariance;
        const GMMClustering ours = fit.run(16);
        check_sound(ours);
        check_never_falls(ours.em_stats, 128);
        likelihood[covariance] = last_likelihood(ours);
    }
    CHECK(likelihood[Covariance::diag] > likelihood[Covariance::tied_diag] + 1);
    CHECK(likelihood[Covariance::diag] > likelihood[Covariance::spherical] + 1);
    CHECK(likelihood[Covariance::tied_diag] >
          likelihood[Covariance::tied_spherical] + 1);
    CHECK(likelihood[Covariance::spherical] >
          likelihood[Covariance::tied_spherical]);
}

TEST_CASE("a dimension without variance harms no other", "[per_engine]") {
    Rows rows = blob_rows(400, 5, 4, 5, 61);
    for (size_t i = 0; i < rows.n; i++) {
        rows.x[i * 5] = 0;
        rows.x[i * 5 + 3] = 7e4f;
    }
    for (const Covariance covariance :
         {Covariance::diag, Covariance::tied_diag}) {
        INFO(to_string(covariance));
        Fit fit = fit_of(rows, 4, 2, 50);
        fit.gmm.covariance = covariance;
        const GMMClustering ours = fit.run(4);
        check_sound(ours);
        check_never_falls(ours.em_stats, 5);
        // the same mixture as of the other dimensions alone
        Fit others = fit;
        others.t.rows = Rows{rows.n, 3, {}};
        for (size_t i = 0; i < rows.n; i++) {
            for (const size_t j : {1, 2, 4}) {
                others.t.rows.x.push_back(rows.row(i)[j]);
            }
        }
        others.t.given.assign(
                others.t.rows.x.begin(), others.t.rows.x.begin() + 4 * 3);
        const GMMClustering few = others.run(4);
        double most = 0;
        for (size_t c = 0; c < 4; c++) {
            most = std::max(
                    {most,
                     relative_gap(
                             ours.mixing_weights[c], few.mixing_weights[c]),
                     relative_gap(
                             ours.variances[c * 5 + 1], few.variances[c * 3]),
                     relative_gap(
                             ours.variances[c * 5 + 4],
                             few.variances[c * 3 + 2])});
            // constants stay what they are, and have the floor's variance
            CHECK(ours.centroids[c * 5] == 0);
            CHECK(relative_gap(ours.centroids[c * 5 + 3], 7e4) < 1e-6);
            CHECK(ours.variances[c * 5] > 0);
            CHECK(ours.variances[c * 5] < 1e-5);
            CHECK(ours.variances[c * 5 + 3] < 10);
        }
        // EM starts from another variance, but gets to the same
        CHECK(most < 1e-3);
    }
}

TEST_CASE("diagonal covariances in one dimension are spherical ones") {
    const Rows rows = blob_rows(300, 1, 3, 4, 71);
    Fit fit = fit_of(rows, 3, 2, 10);
    const GMMClustering spherical = fit.run(3);
    fit.gmm.covariance = Covariance::diag;
    const GMMClustering diagonal = fit.run(3);
    CHECK(same_bytes(spherical.centroids, diagonal.centroids));
    CHECK(same_bytes(spherical.variances, diagonal.variances));
}
