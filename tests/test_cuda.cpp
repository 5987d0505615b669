// The CUDA engine. Cases that need a device say so where there is none, and
// CTest then counts them as skipped.

#include <cmath>
#include <functional>
#include <thread>

#include <faiss/IndexFlat.h>

#include <faiss_flash/FlashClustering.h>
#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/memory_plan.h>
#include <tests/cuda_util.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::EngineOptions;
using faiss_flash::plan_memory;
using faiss_flash::reference_engine;

namespace {

Statistics hard_pass(
        const Problem& p,
        const EngineOptions& options = EngineOptions()) {
    const auto source = array_source(
            p.n(),
            p.d(),
            p.rows.x.data(),
            p.weights.empty() ? nullptr : p.weights.data());
    Statistics stats;
    cuda_engine()
            ->open(*source, options)
            ->accumulate(p.model, Pass::hard, stats);
    return stats;
}

/// Labels within the bound of the true minimum, and statistics that are
/// those of the labels up to single-precision sums of up to 128 rows
/// (weighted) or rows rounded to 26 bits of their largest value (exact sums).
void check_hard_pass(const Problem& p) {
    INFO(p.name);
    check_nearest(*cuda_engine(), p, 1);
    const Nearest found = nearest(*cuda_engine(), p, 1);
    const Statistics stats = hard_pass(p);
    const size_t k = p.k(), d = p.d();
    std::vector<double> sums(k * d), scale(k * d), counts(k), energy(k);
    std::vector<double> sum_grid(k), energy_grid(k);
    std::vector<int64_t> members(k);
    double objective = 0, objective_scale = 0, objective_grid = 0;
    for (size_t i = 0; i < p.n(); i++) {
        const size_t c = found.labels[i];
        for (size_t j = 0; j < d; j++) {
            const double value = p.weight(i) * p.rows.row(i)[j];
            sums[c * d + j] += value;
            scale[c * d + j] += std::abs(value);
        }
        counts[c] += p.weight(i);
        energy[c] += p.weight(i) * p.dist[i * k + c];
        members[c]++;
        double largest = 0;
        for (size_t j = 0; j < d; j++) {
            largest = std::max(largest, (double)std::abs(p.rows.row(i)[j]));
        }
        const double step = std::ldexp(largest, -26);
        const double off =
                2 * std::sqrt(p.dist[i * k + c] * d) * step + d * step * step;
        sum_grid[c] += p.weight(i) * step;
        energy_grid[c] += p.weight(i) * off;
        objective_grid += off;
        objective += p.l2() ? p.cost(i, c) : -p.cost(i, c);
        objective_scale += p.l2() ? p.cost(i, c) : p.magnitude[i * k + c];
    }
    const double rounding = std::ldexp(128 + 2, -24);
    // four columns per lane and slice, then the lanes
    const double energy_rounding = std::ldexp(128 * 4.0 * (d / 128 + 1), -24);
    Worst worst_sum, worst_count, worst_energy;
    for (size_t c = 0; c < k; c++) {
        for (size_t j = c * d; j < (c + 1) * d; j++) {
            worst_sum.see(
                    std::abs(stats.sums[j] - sums[j]),
                    rounding * scale[j] + sum_grid[c],
                    c);
        }
        worst_count.see(
                std::abs(stats.counts[c] - counts[c]), rounding * counts[c], c);
        worst_energy.see(
                std::abs(stats.energy[c] - energy[c]),
                energy_rounding * energy[c] + energy_grid[c] + 1e-30,
                c);
    }
    CHECK_WORST(worst_sum);
    CHECK_WORST(worst_count);
    CHECK_WORST(worst_energy);
    CHECK(stats.members == members);
    CHECK(stats.n == (int64_t)p.n());
    CHECK(std::abs(stats.objective - objective) <=
          energy_rounding * objective_scale + objective_grid + 1e-30);
}

Problem problem(
        size_t n,
        size_t k,
        size_t d,
        Metric metric = Metric::l2,
        bool weighted = false,
        double spread = 1) {
    return make_problem(
            "n = " + std::to_string(n) + ", k = " + std::to_string(k) +
                    ", d = " + std::to_string(d),
            centroid_model(normal_rows(k, d, 3, spread), metric),
            normal_rows(n, d, 4, spread),
            weighted ? random_weights(n, 5) : std::vector<float>());
}

} // namespace

TEST_CASE("a training set that fits stays on the device") {
    const auto plan =
            plan_memory(1000, 128, 5000, 5000, [](int64_t) { return 0; });
    CHECK(plan.resident);
    CHECK(plan.chunks == 1);
    CHECK(plan.chunk_rows == 1000);
}

TEST_CASE("a training set that does not fit is cut into whole blocks") {
    const auto bytes = [](int64_t rows) { return size_t(100 + rows); };
    for (const size_t budget : {228u, 229u, 355u, 356u, 1099u}) {
        const auto plan = plan_memory(1000, 128, budget, 5000, bytes);
        CHECK(!plan.resident);
        CHECK(plan.bytes <= budget);
        CHECK(plan.chunk_rows % 128 == 0);
        CHECK((plan.chunks - 1) * plan.chunk_rows < 1000);
        CHECK(plan.chunks * plan.chunk_rows >= 1000);
        // one block more would not fit
        CHECK(bytes(plan.chunk_rows + 128) > budget);
    }
    CHECK_THROWS_WITH(
            plan_memory(1000, 128, 227, 5000, bytes),
            Catch::Matchers::ContainsSubstring("max_device_bytes = 227") &&
                    Catch::Matchers::ContainsSubstring("228 bytes"));
    // data smaller than a block is one chunk
    CHECK(plan_memory(50, 128, 150, 5000, bytes).chunk_rows == 50);
}

TEST_CASE("cuda: exact on shapes around every tile", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t ns[] = {1, 2, 63, 64, 127, 128, 129, 255, 256, 257, 1000};
    const size_t ks[] = {1, 2, 7, 127, 128, 129, 256, 257, 640, 1030};
    const size_t ds[] = {1, 3, 7, 8, 15, 16, 17, 64, 65, 96, 100, 127, 128};
    for (size_t i = 0; i < 11; i++) {
        for (size_t j = 0; j < 13; j += 2) {
            const size_t k = ks[(3 * i + j) % 10];
            const Metric metric =
                    (i + j) % 3 ? Metric::l2 : Metric::inner_product;
            check_hard_pass(problem(
                    ns[i], k, ds[(i + j) % 13], metric, (i + j) % 2 == 0));
        }
    }
}

TEST_CASE("cuda: exact in many dimensions", "[cuda]") {
    if (no_device()) {
        return;
    }
    check_hard_pass(problem(700, 900, 64)); // more tiles than buffers
    for (const size_t d : {129, 200, 256, 500, 768, 1536}) {
        check_hard_pass(problem(301, 130, d));
        check_hard_pass(problem(97, 300, d, Metric::inner_product));
    }
}

TEST_CASE("cuda: exact on data that strains half precision", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = 700, k = 150, d = 40;
    std::vector<Problem> problems;
    auto add = [&](const char* name,
                   const std::function<void(Rows&, Rows&)>& change) {
        Rows x = normal_rows(n, d, 11), c = normal_rows(k, d, 12);
        change(x, c);
        problems.push_back(make_problem(name, centroid_model(c), x));
    };
    add("constant offset", [](Rows& x, Rows& c) {
        for (float& v : x.x)
            v = v + 1e4f;
        for (float& v : c.x)
            v = v + 1e4f;
    });
    add("huge", [](Rows& x, Rows& c) {
        for (float& v : x.x)
            v *= 1e12f;
        for (float& v : c.x)
            v *= 1e12f;
    });
    add("tiny", [](Rows& x, Rows& c) {
        for (float& v : x.x)
            v *= 1e-12f;
        for (float& v : c.x)
            v *= 1e-12f;
    });
    add("a few outliers", [](Rows& x, Rows&) {
        for (size_t i = 0; i < x.n; i += 50) {
            for (size_t j = 0; j < x.d; j++)
                x.x[i * x.d + j] *= 1000;
        }
    });
    add("outliers beyond fp16", [](Rows& x, Rows&) {
        for (size_t i = 0; i < x.n; i += 50) {
            for (size_t j = 0; j < x.d; j++)
                x.x[i * x.d + j] *= 1e7f;
        }
    });
    add("duplicate centroids", [](Rows&, Rows& c) {
        for (size_t i = 1; i < c.n; i++) {
            if (i % 3)
                std::copy_n(c.row(i / 3), c.d, &c.x[i * c.d]);
        }
    });
    add("all centroids equal", [](Rows&, Rows& c) {
        for (size_t i = 1; i < c.n; i++) {
            std::copy_n(c.row(0), c.d, &c.x[i * c.d]);
        }
    });
    add("vectors on bisectors", [](Rows& x, Rows& c) {
        for (size_t i = 0; i < x.n; i++) {
            const float* a = c.row(i % c.n);
            const float* b = c.row((i + 1) % c.n);
            for (size_t j = 0; j < x.d; j++) {
                x.x[i * x.d + j] = (a[j] + b[j]) / 2;
            }
        }
    });
    add("vectors on centroids", [](Rows& x, Rows& c) {
        for (size_t i = 0; i < x.n; i++) {
            std::copy_n(c.row(i % c.n), c.d, &x.x[i * x.d]);
        }
    });
    add("all zero", [](Rows& x, Rows& c) {
        for (float& v : x.x)
            v = 0;
        for (float& v : c.x)
            v = 0;
    });
    add("centroids a rounding apart", [](Rows&, Rows& c) {
        for (size_t i = 1; i < c.n; i++) {
            for (size_t j = 0; j < c.d; j++) {
                c.x[i * c.d + j] =
                        c.x[j] * (1 + (float)i * std::ldexp(1.f, -20));
            }
        }
    });
    for (const Problem& p : problems) {
        check_hard_pass(p);
    }
}

TEST_CASE("cuda: equal centroids give the lowest number", "[cuda]") {
    if (no_device()) {
        return;
    }
    Rows c = normal_rows(300, 24, 21);
    for (size_t i = 100; i < 300; i++) {
        std::copy_n(c.row(i % 100), c.d, &c.x[i * c.d]);
    }
    const Problem p = make_problem(
            "three copies", centroid_model(c), normal_rows(500, 24, 22));
    for (const idx_t label : nearest(*cuda_engine(), p, 1).labels) {
        CHECK(label < 100);
    }
}

TEST_CASE("cuda: streamed equals resident, run after run", "[cuda]") {
    if (no_device()) {
        return;
    }
    // more than two blocks of update_block_rows(k)
    const size_t n = 300000, k = 70, d = 20;
    Problem p;
    p.name = "streamed";
    p.model = centroid_model(normal_rows(k, d, 31));
    p.rows = normal_rows(n, d, 32);
    for (const bool weighted : {false, true}) {
        if (weighted) {
            p.weights = random_weights(n, 33);
        }
        const Statistics resident = hard_pass(p);
        for (int run = 0; run < 20; run++) {
            REQUIRE(same_bytes(resident, hard_pass(p)));
        }
        EngineOptions options;
        options.max_device_bytes = size_t(70) << 20;
        CHECK(same_bytes(resident, hard_pass(p, options)));
        options.max_device_bytes = size_t(1) << 20;
        CHECK_THROWS_WITH(
                hard_pass(p, options),
                Catch::Matchers::ContainsSubstring("max_device_bytes"));
    }
}

TEST_CASE("cuda: whatever allocation fails, the next pass works", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Problem p = problem(5000, 40, 16);
    const Statistics expected = hard_pass(p);
    fail_each_allocation([&] { CHECK(same_bytes(expected, hard_pass(p))); });
}

TEST_CASE("cuda: several trainings at once", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Problem p = problem(20000, 64, 32);
    const Statistics expected = hard_pass(p);
    std::vector<std::thread> threads;
    std::vector<int> equal(4);
    for (int t = 0; t < 4; t++) {
        threads.emplace_back([&, t] {
            for (int run = 0; run < 5; run++) {
                equal[t] += same_bytes(expected, hard_pass(p));
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(equal == std::vector<int>(4, 5));
}

TEST_CASE("cuda: k-means follows the reference", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Rows x = real_rows(20000);
    auto train = [&](const char* engine, faiss::MetricType metric) {
        faiss_flash::FlashClustering clustering((int)x.d, 100);
        clustering.engine = engine;
        clustering.niter = 15;
        clustering.spherical = metric == faiss::METRIC_INNER_PRODUCT;
        faiss::IndexFlat index(x.d, metric);
        clustering.train(x.n, x.x.data(), index);
        std::vector<double> objectives;
        for (const auto& s : clustering.iteration_stats) {
            objectives.push_back(s.obj);
        }
        return objectives;
    };
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        const auto expected = train("reference", metric);
        const auto found = train("cuda", metric);
        REQUIRE(found.size() == expected.size());
        for (size_t i = 0; i < found.size(); i++) {
            CHECK(relative_gap(found[i], expected[i]) < 1e-4);
        }
    }
}
