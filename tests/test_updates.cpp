// What the training loop is made of: model updates, densities and sources.

#include <faiss/IndexScalarQuantizer.h>

#include <numeric>

#include <faiss_flash/trainer/source.h>
#include <faiss_flash/trainer/update.h>
#include <tests/core_util.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::Model;
using faiss_flash::Statistics;
using faiss_flash::TrainingPlan;
using faiss_flash::VectorSource;

namespace {

bool same_model(const Model& a, const Model& b) {
    return same_bytes(a.means, b.means) &&
            same_bytes(a.variances, b.variances) &&
            same_bytes(a.weights, b.weights);
}

} // namespace

TEST_CASE("splits take half of a cluster and move the halves apart") {
    std::mt19937 random(91);
    for (int trial = 0; trial < 200; trial++) {
        const size_t k = 2 + random() % 20, d = 1 + random() % 5;
        const size_t frozen = random() % k;
        Model model;
        model.k = k;
        model.d = d;
        model.means = normal_rows(k, d, 92 + trial, 5, 3).x;
        std::vector<float> sizes(k);
        int empty = 0;
        double total = 0;
        for (size_t c = 0; c < k; c++) {
            sizes[c] = random() % 3 == 0 ? 0 : float(1 + random() % 50);
            if (trial % 5 == 0) {
                sizes[c] *= 0.001f; // FAISS would never end
            }
            empty += c >= frozen && sizes[c] == 0;
            total += c >= frozen ? sizes[c] : 0;
        }
        const Model before = model;
        const std::vector<float> sizes_before = sizes;
        const int nsplit =
                faiss_flash::split_empty_clusters(1000, frozen, sizes, model);
        CHECK(nsplit == empty);
        double total_after = 0;
        for (size_t c = 0; c < k; c++) {
            if (c < frozen) {
                CHECK(sizes[c] == sizes_before[c]);
                CHECK(std::equal(
                        model.means.begin() + c * d,
                        model.means.begin() + (c + 1) * d,
                        before.means.begin() + c * d));
                continue;
            }
            total_after += sizes[c];
            if (total > 0) {
                CHECK(sizes[c] > 0);
            }
            if (sizes_before[c] == 0 && total > 0) {
                // somebody else's place, a thousandth or so away each time
                double nearest = HUGE_VAL;
                for (size_t other = frozen; other < k; other++) {
                    double worst = 0;
                    for (size_t j = 0; j < d; j++) {
                        worst = std::max(
                                worst,
                                relative_gap(
                                        model.means[c * d + j],
                                        before.means[other * d + j]));
                    }
                    nearest = std::min(
                            nearest,
                            sizes_before[other] > 0 ? worst : HUGE_VAL);
                }
                CHECK(nearest <= (empty + 1) / 1000.0);
                CHECK(nearest > 0);
            }
        }
        CHECK(relative_gap(total_after, total) <= 1e-6);
    }
}

TEST_CASE("a split that would take FAISS hours ends") {
    // sizes just above 1 among a thousand million vectors
    Model model;
    model.k = 1000;
    model.d = 1;
    model.means = normal_rows(1000, 1, 95).x;
    std::vector<float> sizes(1000, 1.0000002f);
    std::fill_n(sizes.begin(), 100, 0.0f);
    const int nsplit =
            faiss_flash::split_empty_clusters(1000000000, 0, sizes, model);
    CHECK(nsplit == 100);
    CHECK(*std::min_element(sizes.begin(), sizes.end()) > 0);
}

TEST_CASE("the M-step gives means, variances and weights of its sums") {
    // statistics made here around one set of means, updated to another
    const Rows rows = normal_rows(80, 4, 101, 1, 1e3);
    const size_t k = 3, d = 4;
    Model model;
    model.k = k;
    model.d = d;
    model.means = normal_rows(k, d, 102, 5, 1e3).x;
    model.variances.assign(k, 1);
    model.weights.assign(k, 1.0f / k);
    std::mt19937 random(103);
    std::uniform_real_distribution<double> uniform;
    std::vector<double> r(rows.n * k);
    Statistics stats;
    stats.reset(k, d);
    for (size_t i = 0; i < rows.n; i++) {
        for (size_t c = 0; c < k; c++) {
            const double share = r[i * k + c] = uniform(random);
            stats.counts[c] += share;
            for (size_t j = 0; j < d; j++) {
                const double x = rows.row(i)[j];
                const double diff = x - model.means[c * d + j];
                stats.sums[c * d + j] += share * x;
                stats.energy[c] += share * diff * diff;
            }
        }
    }
    TrainingPlan plan;
    for (const int what : {0, 1, 2, 3, 4}) {
        plan.shared_variance = what == 1;
        plan.int_centroids = what == 2;
        const size_t frozen = what == 3 ? 2 : 0;
        const double floor = what == 4 ? 1e6 : 1e-9;
        const Model before = model;
        Model after = model;
        faiss_flash::update_mixture(plan, stats, frozen, floor, after);
        std::vector<double> energy(k);
        double all = 0, total = 0;
        for (size_t c = 0; c < k; c++) {
            for (size_t j = 0; j < d; j++) {
                double mean = stats.sums[c * d + j] / stats.counts[c];
                mean = what == 2 ? std::round(mean) : mean;
                if (c < frozen) {
                    mean = before.means[c * d + j];
                }
                CHECK(relative_gap(after.means[c * d + j], mean) <= 1e-7);
                for (size_t i = 0; i < rows.n; i++) {
                    // around the mean as it is stored
                    energy[c] += r[i * k + c] *
                            std::pow(rows.row(i)[j] - after.means[c * d + j],
                                     2);
                }
            }
            all += energy[c];
            total += stats.counts[c];
        }
        for (size_t c = 0; c < k; c++) {
            double variance = what == 1 ? all / (d * total)
                                        : energy[c] / (d * stats.counts[c]);
            variance = std::max(variance, floor);
            CHECK(relative_gap(after.variances[c], variance) <= 1e-6);
            CHECK(relative_gap(after.weights[c], stats.counts[c] / total) <=
                  1e-6);
        }
    }
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

    plan.min_weight = 0; // never
    after = model;
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 0);
    CHECK(same_model(after, model));
    plan.min_weight = 0.01; // all frozen
    CHECK(faiss_flash::reseed_components(plan, stats, 4, after) == 0);
    CHECK(same_model(after, model));
}

namespace {

/// Rows of a source in ranges of `step`, with their weights (1 if none).
std::pair<std::vector<float>, std::vector<float>> read_all(
        const VectorSource& source,
        size_t step) {
    std::vector<float> x, w, x_buffer, w_buffer;
    for (size_t i0 = 0; i0 < source.n(); i0 += step) {
        const size_t count = std::min(step, source.n() - i0);
        const float* rows = source.rows(i0, count, x_buffer);
        x.insert(x.end(), rows, rows + count * source.d());
        const float* weights = source.weights(i0, count, w_buffer);
        for (size_t i = 0; i < count; i++) {
            w.push_back(weights ? weights[i] : 1);
        }
    }
    return {x, w};
}

} // namespace

TEST_CASE("sources give the same rows in ranges of any size", "[sanitize]") {
    const Rows rows = normal_rows(101, 7, 111);
    const std::vector<float> weights = random_weights(101, 112);
    faiss::IndexScalarQuantizer codec(7, faiss::ScalarQuantizer::QT_8bit);
    codec.train(rows.n, rows.x.data());
    std::vector<uint8_t> codes(rows.n * codec.sa_code_size());
    codec.sa_encode(rows.n, rows.x.data(), codes.data());
    std::vector<float> decoded(rows.x.size());
    codec.sa_decode(rows.n, codes.data(), decoded.data());
    std::vector<int64_t> chosen = {100, 0, 5, 5, 77, 3, 99, 0};

    for (const float* w : {(const float*)nullptr, weights.data()}) {
        const auto check = [&](const VectorSource& source,
                               const std::vector<float>& x,
                               const std::vector<int64_t>& numbers) {
            REQUIRE(source.n() == numbers.size());
            CHECK(source.d() == 7);
            std::vector<float> expected_x, expected_w;
            for (const int64_t i : numbers) {
                expected_x.insert(
                        expected_x.end(),
                        x.begin() + i * 7,
                        x.begin() + (i + 1) * 7);
                expected_w.push_back(w ? w[i] : 1);
            }
            for (const size_t step : {1, 2, 3, 10, 1000}) {
                const auto found = read_all(source, step);
                CHECK(same_bytes(found.first, expected_x));
                CHECK(same_bytes(found.second, expected_w));
            }
            std::vector<float> buffer;
            CHECK((source.weights(0, 1, buffer) == nullptr) == (w == nullptr));
        };
        std::vector<int64_t> every(rows.n);
        std::iota(every.begin(), every.end(), 0);
        const auto array = [&] {
            return array_source(rows.n, 7, rows.x.data(), w);
        };
        check(*array(), rows.x, every);
        check(*faiss_flash::subset_source(array(), chosen), rows.x, chosen);
        for (const size_t block : {1, 4, 100, 101, 5000}) {
            const auto coded = [&] {
                return faiss_flash::codec_source(
                        rows.n, codec, codes.data(), block, w);
            };
            check(*coded(), decoded, every);
            check(*faiss_flash::subset_source(coded(), chosen),
                  decoded,
                  chosen);
        }
    }
    // vectors in memory are not copied
    std::vector<float> buffer;
    CHECK(array_source(rows.n, 7, rows.x.data(), nullptr)->rows(3, 5, buffer) ==
          rows.row(3));
    CHECK(buffer.empty());
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
}
