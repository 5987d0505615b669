// The M-step, its floors and re-seeds, and the densities of a model.

#include <numeric>

#include <faiss_flash/trainer/update.h>
#include <tests/core_util.h>

using namespace test;
using faiss_flash::Covariance;
using faiss_flash::Model;
using faiss_flash::Statistics;
using faiss_flash::TrainingPlan;

namespace {

bool same_model(const Model& a, const Model& b) {
    return same_bytes(a.means, b.means) &&
            same_bytes(a.variances, b.variances) &&
            same_bytes(a.weights, b.weights);
}

} // namespace

TEST_CASE("the M-step gives means, variances and weights of its sums") {
    // statistics made here around one set of means, updated to another
    const Rows rows = normal_rows(80, 4, 101, 1, 1e3);
    const size_t k = 3, d = 4;
    Model start;
    start.k = k;
    start.d = d;
    start.means = normal_rows(k, d, 102, 5, 1e3).x;
    start.variances.assign(k, 1);
    start.weights.assign(k, 1.0f / k);
    std::vector<float> uniform = random_weights(rows.n * k, 103);
    const std::vector<double> r(uniform.begin(), uniform.end());
    for (const Covariance covariance :
         {Covariance::spherical,
          Covariance::tied_spherical,
          Covariance::diag,
          Covariance::tied_diag}) {
        INFO(to_string(covariance));
        const bool diagonal = is_diagonal(covariance);
        const size_t per = diagonal ? d : 1;
        Model before = start;
        if (diagonal) {
            before.make_diagonal();
            CHECK(before.variances == std::vector<float>(k * d, 1));
        }
        Statistics stats;
        stats.reset(k, d, per);
        REQUIRE(stats.energy.size() == k * per);
        for (size_t i = 0; i < rows.n; i++) {
            for (size_t c = 0; c < k; c++) {
                const double share = r[i * k + c];
                stats.counts[c] += share;
                for (size_t j = 0; j < d; j++) {
                    const double x = rows.row(i)[j];
                    const double diff = x - before.means[c * d + j];
                    stats.sums[c * d + j] += share * x;
                    stats.energy[c * per + j % per] += share * diff * diff;
                }
            }
        }
        enum { plainly, whole_numbers, frozen_means, at_the_floor };
        for (const int what :
             {plainly, whole_numbers, frozen_means, at_the_floor}) {
            TrainingPlan plan;
            plan.covariance = covariance;
            plan.int_centroids = what == whole_numbers;
            const size_t frozen = what == frozen_means ? 2 : 0;
            std::vector<double> floor(per, 1e-9);
            if (what == at_the_floor) {
                floor.back() = 1e6; // of the last dimension
            }
            Model after = before;
            faiss_flash::update_mixture(plan, stats, frozen, floor, after);
            std::vector<double> energy(k * per), all(per);
            double total = 0;
            for (size_t c = 0; c < k; c++) {
                for (size_t j = 0; j < d; j++) {
                    double mean = stats.sums[c * d + j] / stats.counts[c];
                    mean = what == whole_numbers ? std::round(mean) : mean;
                    if (c < frozen) {
                        mean = before.means[c * d + j];
                    }
                    CHECK(relative_gap(after.means[c * d + j], mean) <= 1e-7);
                    for (size_t i = 0; i < rows.n; i++) {
                        // around the mean as it is stored
                        const double diff =
                                rows.row(i)[j] - after.means[c * d + j];
                        energy[c * per + j % per] += r[i * k + c] * diff * diff;
                        all[j % per] += r[i * k + c] * diff * diff;
                    }
                }
                total += stats.counts[c];
            }
            REQUIRE(after.variances.size() == k * per);
            for (size_t i = 0; i < k * per; i++) {
                double variance = is_tied(covariance)
                        ? all[i % per] / total
                        : energy[i] / stats.counts[i / per];
                variance /= diagonal ? 1 : d;
                CHECK(relative_gap(
                              after.variances[i],
                              std::max(variance, floor[i % per])) <= 1e-6);
            }
            for (size_t c = 0; c < k; c++) {
                CHECK(relative_gap(after.weights[c], stats.counts[c] / total) <=
                      1e-6);
            }
        }
    }
}

TEST_CASE("a variance survives a mean that moves a million deviations") {
    // the mean moves from 0 to 1000, the variance is 1e-6
    const size_t n = 200;
    const Rows rows = normal_rows(n, 2, 111, 1e-3, 1000);
    Model model;
    model.k = 1;
    model.d = 2;
    model.means = {0, 1000};
    model.variances = {1, 1};
    model.weights = {1};
    Statistics stats;
    stats.reset(1, 2, 2);
    std::vector<double> mean(2), variance(2);
    stats.counts[0] = n;
    for (size_t i = 0; i < 2 * n; i++) {
        stats.sums[i % 2] += rows.x[i];
        stats.energy[i % 2] +=
                std::pow(double(rows.x[i]) - model.means[i % 2], 2);
        mean[i % 2] += double(rows.x[i]) / n;
    }
    for (size_t i = 0; i < 2 * n; i++) {
        variance[i % 2] += std::pow(rows.x[i] - float(mean[i % 2]), 2) / n;
    }
    TrainingPlan plan;
    plan.covariance = Covariance::diag;
    faiss_flash::update_mixture(plan, stats, 0, {1e-9, 1e-9}, model);
    // sums of 1e6 n in double precision, of which 1e-6 n is left
    CHECK(relative_gap(model.variances[0], variance[0]) <= 1e-2);
    CHECK(relative_gap(model.variances[1], variance[1]) <= 1e-6);
}

TEST_CASE("variances have a floor, in each dimension its own") {
    TrainingPlan plan;
    plan.variance_floor = 0.1;
    Model model;
    model.k = 2;
    model.d = 3;
    model.means = {1, 1, 0, -1, -1, 0};
    model.weights = {0.5, 0.5};
    model.variances = {4, 4};
    Statistics stats;
    stats.counts = {30, 70};
    const auto floor = [&] {
        return faiss_flash::variance_floor(plan, stats, model);
    };
    CHECK(floor() == std::vector<double>{0.4});
    model.make_diagonal();
    // 10, 1 and 0 per vector
    stats.energy = {400, 60, 0, 600, 40, 0};
    const std::vector<double> found = floor();
    REQUIRE(found.size() == 3);
    CHECK(relative_gap(found[0], 1) <= 1e-12);
    CHECK(relative_gap(found[1], 0.1) <= 1e-12);
    CHECK(relative_gap(found[2], 0.1 * 1e-3 * 11 / 3) <= 1e-12);
    // not above what EM starts from
    plan.variance_floor = 1;
    CHECK(floor()[0] == 4);
    // and above the rounding of means
    model.means = {1e6, 1, 0, 1e6, -1, 0};
    plan.variance_floor = 1e-3;
    CHECK(floor()[0] == 4);
    model.means[0] = model.means[3] = 1e4;
    CHECK(relative_gap(floor()[0], 0.1) <= 1e-12);
}

TEST_CASE("components are re-seeded beside the one with most to explain") {
    Model model;
    model.k = 4;
    model.d = 3;
    model.means = {0, 0, 0, 10, 10, 10, 20, 20, 20, 1000, 1000, 1000};
    model.variances = {1, 4, 9, 1};
    model.weights = {0.3f, 0.3f, 0.4f, 0};
    Statistics stats;
    stats.reset(4, 3);
    stats.counts = {30, 30, 40, 0};
    stats.energy = {90, 360, 300, 0};
    TrainingPlan plan;
    plan.min_weight = 0.01;
    Model after = model;
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 1);
    for (size_t j = 0; j < 3; j++) {
        // a tenth of the standard deviation 2 to either side
        const float a = after.means[3 + j], b = after.means[9 + j];
        CHECK(a + b == 20);
        CHECK(relative_gap(std::abs(a - b), 0.4) <= 1e-5);
        CHECK(after.means[j] == 0);
    }
    CHECK(after.variances[3] == 4);
    CHECK(after.weights[3] == after.weights[1]);
    CHECK(after.weights[3] == 0.15f);
    CHECK(relative_gap(
                  std::accumulate(
                          after.weights.begin(), after.weights.end(), 0.0),
                  1) <= 1e-6);

    // two at once: the halved energy of the first (180) is less than the
    // next one's
    after = model;
    after.weights = {0, 0.6f, 0.4f, 0};
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 2);
    CHECK(after.variances == std::vector<float>{4, 4, 9, 9});
    CHECK(after.weights == std::vector<float>{0.3f, 0.3f, 0.2f, 0.2f});

    // by a tenth of each dimension's deviation, beside the one with most
    after = model;
    after.make_diagonal();
    for (size_t j = 0; j < 3; j++) {
        after.variances[3 + j] = float((j + 1) * (j + 1));
    }
    stats.energy = {30, 30, 30, 10, 10, 340, 100, 100, 100, 0, 0, 0};
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 1);
    for (size_t j = 0; j < 3; j++) {
        const float apart = after.means[3 + j] - after.means[9 + j];
        CHECK(relative_gap(std::abs(apart), 0.2 * (j + 1)) <= 1e-5);
        CHECK(after.variances[9 + j] == after.variances[3 + j]);
    }
    stats.energy = {90, 360, 300, 0};

    plan.min_weight = 0; // never
    after = model;
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 0);
    CHECK(same_model(after, model));
    plan.min_weight = 0.01; // all frozen
    CHECK(faiss_flash::reseed_components(plan, stats, 4, after) == 0);
    CHECK(same_model(after, model));
}

TEST_CASE("the density of a model is what its formula says") {
    Model model;
    model.k = 3;
    model.d = 6;
    model.variances = {0.25f, 1, 1e-12f};
    model.weights = {0.5f, 0.5f, 0};
    const std::vector<double> scales = faiss_flash::log_scales(model);
    const double pi = std::acos(-1.0);
    CHECK(relative_gap(
                  scales[0], std::log(0.5) - 3 * std::log(2 * pi * 0.25)) <=
          1e-12);
    CHECK(relative_gap(scales[1], std::log(0.5) - 3 * std::log(2 * pi)) <=
          1e-12);
    CHECK(scales[2] == -HUGE_VAL); // no weight: never chosen

    // with the same variance in every dimension, and with others
    model.make_diagonal();
    CHECK(model.is_diagonal());
    CHECK(model.variances.size() == 18);
    const std::vector<double> same = faiss_flash::log_scales(model);
    CHECK(relative_gap(same[0], scales[0]) <= 1e-12);
    CHECK(relative_gap(same[1], scales[1]) <= 1e-12);
    model.variances[3] = 9;
    CHECK(relative_gap(
                  faiss_flash::log_scales(model)[0],
                  scales[0] + 0.5 * std::log(0.25 / 9)) <= 1e-12);

    // in one dimension they are one
    model.d = 1;
    model.variances = {1, 2, 3};
    model.make_diagonal();
    CHECK_FALSE(model.is_diagonal());
    CHECK(model.variances == std::vector<float>{1, 2, 3});
    using faiss_flash::is_variance_count;
    CHECK(is_variance_count(3, 3, 1));
    CHECK(is_variance_count(3, 3, 5));
    CHECK(is_variance_count(15, 3, 5));
    CHECK_FALSE(is_variance_count(0, 3, 5));
    CHECK_FALSE(is_variance_count(5, 3, 5));
    CHECK_FALSE(is_variance_count(16, 3, 5));
    CHECK_FALSE(is_variance_count(0, 0, 5));
}

TEST_CASE("covariances have names") {
    for (const char* name :
         {"spherical", "tied_spherical", "diag", "tied_diag"}) {
        CHECK(to_string(faiss_flash::covariance_by_name(name)) ==
              std::string(name));
    }
    CHECK(message_of([] {
              faiss_flash::covariance_by_name("full");
          }).find("'full' should be one of spherical") != std::string::npos);
}
