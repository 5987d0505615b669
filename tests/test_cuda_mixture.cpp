// Mixtures on the CUDA engine. Cases that need a device say so where there is
// none, and CTest then counts them as skipped.

#include <cmath>
#include <functional>

#include <faiss_flash/GMMClustering.h>
#include <faiss_flash/cuda/mixture/plan.h>
#include <tests/cuda_util.h>
#include <tests/gmm_util.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::EngineOptions;
using faiss_flash::plan_mixture;

namespace {

void check_mixture(const Problem& p) {
    check_soft(*cuda_engine(), p, false);
    check_responsibilities(*cuda_engine(), p, 1);
    check_responsibilities(*cuda_engine(), p, std::min<size_t>(p.k(), 3));
}

} // namespace

TEST_CASE("a soft pass is cut to the memory there is") {
    for (const int k : {1, 70, 1024, 5000, 65536}) {
        for (const int64_t n : {1, 1000, 32768, 1000000, 3000000}) {
            const size_t least = faiss_flash::least_mixture_bytes(n, k, 96);
            size_t before = 0;
            for (size_t budget : {least, 2 * least, size_t(1) << 32}) {
                const auto plan = plan_mixture(n, k, 96, budget);
                CHECK(plan.bytes() >= before);
                before = plan.bytes();
                CHECK((plan.bytes() <= budget || plan.bytes() == least));
                CHECK(plan.rows <= n);
                CHECK((plan.rows == n || plan.rows % plan.block_rows == 0));
                CHECK(plan.vectors() >= 1);
                CHECK(plan.pieces >= 1);
                // chunks of other passes are whole blocks of this one
                CHECK((1 << 17) % plan.block_rows == 0);
                // what results depend on
                const auto other = plan_mixture(n, k, 96, 0);
                CHECK(other.block_rows == plan.block_rows);
                CHECK(other.piece_rows == plan.piece_rows);
                CHECK(other.wide_rows == plan.wide_rows);
            }
        }
    }
}

TEST_CASE("cuda: soft passes on shapes around every tile", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t ns[] = {1, 2, 63, 64, 65, 127, 129, 255, 256, 257, 700};
    const size_t ks[] = {1, 2, 7, 64, 65, 127, 128, 129, 257, 500};
    const size_t ds[] = {1, 3, 7, 8, 16, 17, 64, 65, 96, 100, 127, 128};
    const double scales[] = {0.01, 0.1, 1, 10};
    for (size_t i = 0; i < 11; i += small_shapes() ? 3 : 1) {
        for (size_t j = 0; j < 12; j += small_shapes() ? 12 : 3) {
            check_mixture(
                    mixture(ns[i],
                            ks[(3 * i + j) % 10],
                            ds[(i + j) % 12],
                            scales[(i + j / 3) % 4],
                            (i + j) % 2 == 0,
                            uint32_t(100 * i + j)));
        }
    }
}

TEST_CASE("cuda: soft passes in many dimensions", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = small_shapes() ? 70 : 201;
    for (const size_t d : {129, 200, 256, 500, 768, 1536}) {
        for (const double scale : {0.1, 1.0}) {
            if (small_shapes() && (d > 200 || scale == 1)) {
                continue;
            }
            check_mixture(mixture(n, 130, d, scale, true, uint32_t(d)));
        }
    }
}

TEST_CASE("cuda: responsibilities from one component to all", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const double scale : {1e-4, 1e-2, 0.1, 1.0, 10.0, 1e3}) {
        for (const size_t k : {70, 300}) {
            if (small_shapes() && k == 300) {
                continue;
            }
            Problem p =
                    mixture(small_shapes() ? 40 : 300, k, 10, scale, true, 110);
            p.model.weights[3] = 0; // never chosen
            check_mixture(p);
            CHECK(accumulate(*cuda_engine(), p, Pass::soft).counts[3] == 0);
        }
    }
}

TEST_CASE("cuda: soft passes on awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    // more components than a tile's row holds; less than a tile of the rest
    const size_t n = small_shapes() ? 50 : 300;
    const size_t k = small_shapes() ? 70 : 150, d = small_shapes() ? 9 : 24;
    auto check = [&](const char* name,
                     double scale,
                     const std::function<void(Rows&, Rows&)>& change,
                     const std::function<void(Model&)>& change_model = {}) {
        Rows x = normal_rows(n, d, 11), c = normal_rows(k, d, 12);
        change(x, c);
        Problem p =
                as_mixture(make_problem(name, centroid_model(c), x), scale, 13);
        if (change_model) {
            change_model(p.model);
        }
        check_mixture(p);
    };
    const auto nothing = [](Rows&, Rows&) {};
    check("identical vectors", 1, [](Rows& x, Rows&) {
        for (size_t i = 1; i < x.n; i++) {
            std::copy_n(x.row(0), x.d, &x.x[i * x.d]);
        }
    });
    check("identical vectors and means", 1, [](Rows& x, Rows& c) {
        for (size_t i = 0; i < x.n; i++) {
            std::copy_n(c.row(0), x.d, &x.x[i * x.d]);
        }
        for (size_t i = 1; i < c.n; i++) {
            std::copy_n(c.row(0), c.d, &c.x[i * c.d]);
        }
    });
    check("constant offset", 1, [](Rows& x, Rows& c) {
        for (float& v : x.x) {
            v += 1e4f;
        }
        for (float& v : c.x) {
            v += 1e4f;
        }
    });
    for (const float factor : {1e12f, 1e-12f}) {
        check("huge or tiny", 1, [&](Rows& x, Rows& c) {
            for (float& v : x.x) {
                v *= factor;
            }
            for (float& v : c.x) {
                v *= factor;
            }
        });
    }
    for (const float factor : {30.f, 1000.f, 1e7f}) {
        check("far outliers", 0.1, [&](Rows& x, Rows&) {
            for (size_t i = 0; i < x.n * x.d; i++) {
                x.x[i] *= i / x.d % 50 == 0 ? factor : 1;
            }
        });
    }
    check("vectors on means", 1, [](Rows& x, Rows& c) {
        for (size_t i = 0; i < x.n; i++) {
            std::copy_n(c.row(i % c.n), c.d, &x.x[i * x.d]);
        }
    });
    check("collapsed components", 1, nothing, [](Model& model) {
        for (size_t c = 0; c < model.k; c += 3) {
            model.variances[c] = 1e-9f; // the smallest that trainers allow
        }
    });
    check("all collapsed", 1, nothing, [](Model& model) {
        model.variances.assign(model.k, 1e-4f);
    });
    check("variances of all sizes", 1, nothing, [](Model& model) {
        for (size_t c = 0; c < model.k; c++) {
            model.variances[c] *= std::pow(10.f, float(c % 7) - 3);
        }
    });
    check("one heavy component", 1, nothing, [](Model& model) {
        model.weights.assign(model.k, 1e-12f);
        model.weights[17] = 1;
    });
    check("one variance", 0.3, nothing, [](Model& model) {
        model.variances.assign(model.k, model.variances[0]);
    });
    check("a density of distances whatever the metric",
          0.3,
          nothing,
          [](Model& model) { model.metric = Metric::inner_product; });
}

TEST_CASE("cuda: many rows that all components share", "[cuda]") {
    if (no_device()) {
        return;
    }
    // enough of them in a block for matrix products
    struct Shape {
        size_t n, k, d;
        float offset;
    };
    for (const Shape& s :
         {Shape{2500, 300, 100, 0},
          Shape{1500, 129, 129, 3},
          Shape{1100, 700, 5, -50},
          Shape{1030, 66, 8, 0},
          Shape{1030, 66, 136, 0},
          Shape{40000, 80, 33, 0}}) {
        if (small_shapes() && s.n != 1030) {
            continue;
        }
        INFO("n = " << s.n << ", k = " << s.k << ", d = " << s.d);
        Rows x = normal_rows(s.n, s.d, 201), c = normal_rows(s.k, s.d, 202);
        for (float& v : x.x) {
            v += s.offset;
        }
        for (float& v : c.x) {
            v = 0.3f * v + s.offset;
        }
        Problem p;
        p.model = centroid_model(c);
        p.rows = x;
        p.model.weights.assign(s.k, 1.0f / s.k);
        for (size_t i = 0; i < s.k; i++) {
            p.model.variances.push_back(1 + 0.01f * (i % 20));
        }
        const Statistics found = accumulate(*cuda_engine(), p, Pass::soft);
        const Statistics expected =
                accumulate(faiss_flash::reference_engine(), p, Pass::soft);
        CHECK(found.n == (int64_t)s.n);
        CHECK(found.total_weight == s.n);
        CHECK(found.dropped_mass <= faiss_flash::max_dropped_mass);
        CHECK(std::abs(found.log_likelihood - expected.log_likelihood) <=
              1e-3 * s.n);
        Worst count, energy, sum;
        int64_t members = 0, moved = 0;
        for (size_t i = 0; i < s.k; i++) {
            const double weight = expected.counts[i];
            count.see(std::abs(found.counts[i] - weight), 1e-4 * weight, i);
            energy.see(
                    std::abs(found.energy[i] - expected.energy[i]),
                    1e-4 * expected.energy[i],
                    i);
            for (size_t j = 0; j < s.d; j++) {
                // relative to the values that are summed
                sum.see(std::abs(
                                found.sums[i * s.d + j] -
                                expected.sums[i * s.d + j]),
                        1e-4 * weight * (1 + std::abs(s.offset)),
                        i,
                        j);
            }
            members += found.members[i];
            moved += std::abs(found.members[i] - expected.members[i]);
        }
        CHECK_WORST(count);
        CHECK_WORST(energy);
        CHECK_WORST(sum);
        CHECK(members == (int64_t)s.n);
        CHECK(moved <= (int64_t)s.n / 500); // near ties may go either way
    }
}

TEST_CASE("cuda: vectors whose distances overflow", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const size_t k : {33, 200}) {
        Problem p = make_problem(
                "norms of 1e25",
                centroid_model(normal_rows(k, 12, 103)),
                normal_rows(40, 12, 104, 1e25));
        p = as_mixture(p, 1, 105);
        p.model.variances.assign(k, 1e-3f);
        const Statistics stats = accumulate(*cuda_engine(), p, Pass::soft);
        double count = 0;
        for (const double c : stats.counts) {
            count += c;
        }
        CHECK(std::abs(count - p.n()) <= 1e-6 * p.n());
        CHECK(!std::isnan(stats.log_likelihood));
        for (const double s : stats.sums) {
            CHECK(std::isfinite(s));
        }
    }
}

TEST_CASE("cuda: a second soft pass, thresholds from the first", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = small_shapes() ? 130 : 3000, k = small_shapes() ? 70 : 300;
    Problem p = mixture(n, k, 32, 0.2, true, 141);
    const auto source =
            array_source(p.n(), p.d(), p.rows.x.data(), p.weights.data());
    const auto set = cuda_engine()->open(*source, {});
    Statistics stats;
    set->accumulate(p.model, Pass::soft, stats);
    // another model, for which the best components are wrong
    const Problem other = mixture(n, k, 32, 0.1, true, 151);
    p = make_problem("other model", other.model, p.rows, p.weights);
    set->accumulate(p.model, Pass::soft, stats);
    const Statistics fresh = accumulate(*cuda_engine(), p, Pass::soft);
    CHECK(relative_gap(stats.log_likelihood, fresh.log_likelihood) < 1e-6);
    // lower thresholds list more, and rows with long lists are summed in
    // another order: log densities of some 10² differ in single precision
    for (size_t c = 0; c < p.k(); c++) {
        CHECK(std::abs(stats.counts[c] - fresh.counts[c]) <=
              3e-5 * (stats.counts[c] + 1));
    }
}

TEST_CASE(
        "cuda: soft passes streamed equal resident, run after run",
        "[cuda]") {
    if (no_device() || small_shapes()) {
        return;
    }
    // more than two blocks of update_block_rows(k)
    const size_t n = 300000, k = 70, d = 20;
    Problem p;
    p.name = "streamed";
    p.rows = normal_rows(n, d, 32);
    p.model = centroid_model(normal_rows(k, d, 31));
    p.model.weights.assign(k, 1.0f / k);
    // few components per vector; a mix of lists and dense rows
    for (const float variance : {0.3f, 3.0f}) {
        p.model.variances.assign(k, variance);
        p.weights.clear();
        for (const bool weighted : {false, true}) {
            if (weighted) {
                p.weights = random_weights(n, 33);
            }
            check_repeats(p, 20, size_t(130) << 20);
            EngineOptions options;
            options.max_device_bytes = size_t(1) << 20;
            CHECK_THROWS_WITH(
                    two_passes(p, options),
                    Catch::Matchers::ContainsSubstring("max_device_bytes"));
        }
    }
}

TEST_CASE(
        "cuda: whatever allocation fails, the next soft pass works",
        "[cuda]") {
    if (no_device()) {
        return;
    }
    const Problem p =
            mixture(small_shapes() ? 100 : 5000, 140, 16, 0.5, false, 161);
    const auto expected = two_passes(p);
    fail_each_allocation([&] {
        const auto stats = two_passes(p);
        CHECK(same_bytes(expected[0], stats[0]));
        CHECK(same_bytes(expected[1], stats[1]));
    });
}

TEST_CASE("cuda: EM follows the reference and never falls", "[cuda]") {
    if (no_device() || small_shapes()) {
        return;
    }
    const Rows x = real_rows(5000);
    auto fit = [&](const char* engine, Covariance covariance) {
        GMMClustering clustering((int)x.d, 50);
        clustering.engine = engine;
        clustering.gmm.warm_start_niter = 5;
        // the reference takes its time for diagonal ones
        clustering.gmm.em_niter = is_diagonal(covariance) ? 4 : 10;
        clustering.gmm.em_tolerance = 0;
        clustering.gmm.covariance = covariance;
        faiss::IndexFlatL2 index(x.d);
        clustering.train(x.n, x.x.data(), index);
        check_sound(clustering);
        check_never_falls(clustering.em_stats, x.d);
        return clustering.em_stats;
    };
    for (const Covariance covariance :
         {Covariance::spherical,
          Covariance::tied_spherical,
          Covariance::diag,
          Covariance::tied_diag}) {
        const auto expected = fit("reference", covariance);
        const auto found = fit("cuda", covariance);
        REQUIRE(found.size() == expected.size());
        for (size_t i = 0; i < found.size(); i++) {
            CHECK(std::abs(
                          found[i].log_likelihood -
                          expected[i].log_likelihood) <
                  1e-4 * std::abs(expected[i].log_likelihood));
        }
    }
}
