// Diagonal covariances on the CUDA engine. Cases that need a device say so
// where there is none, and CTest then counts them as skipped.

#include <algorithm>
#include <cmath>
#include <functional>

#include <faiss_flash/cuda/device.h>
#include <tests/cuda_util.h>
#include <tests/gmm_util.h>

using namespace test;

namespace {

/// A soft pass twice: thresholds from nearest means, and from the pass
/// before. Responsibilities of diagonal mixtures are the CPU engine's.
void check_diagonal(const Problem& p) {
    check_soft(*cuda_engine(), p, false);
    const auto stats = two_passes(p);
    const auto again = two_passes(p);
    for (int i = 0; i < 2; i++) {
        CHECK(same_bytes(stats[i], again[i]));
    }
    CHECK(relative_gap(stats[0].log_likelihood, stats[1].log_likelihood) <
          1e-6);
}

} // namespace

TEST_CASE("cuda: diagonal covariances on shapes around tiles", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t ns[] = {1, 65, 127, 300, 700};
    const size_t ks[] = {1, 3, 64, 129, 500, 1000};
    const size_t ds[] = {2, 7, 8, 33, 96, 100, 128, 300};
    const double scales[] = {0.01, 0.1, 1, 10};
    for (size_t i = 0; i < (small_shapes() ? 2 : 5); i++) {
        for (size_t j = 0; j < 8; j += small_shapes() ? 4 : 1) {
            const size_t k = ks[(2 * i + j) % 6];
            for (const bool tied : {false, true}) {
                check_diagonal(as_diagonal(
                        mixture(ns[i],
                                k,
                                ds[j],
                                scales[(i + j) % 4],
                                (i + j) % 2 == 0,
                                uint32_t(100 * i + j)),
                        uint32_t(j),
                        tied));
            }
        }
    }
    for (const bool tied : {false, true}) {
        const size_t d = small_shapes() ? 150 : 1536;
        check_diagonal(
                as_diagonal(mixture(130, 70, d, 0.3, !tied, 22), 23, tied));
    }
    // one dimension: the same as spherical
    check_diagonal(as_diagonal(mixture(300, 70, 1, 0.3, true, 21), 1));
}

TEST_CASE("cuda: diagonal covariances from one component to all", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const double scale : {1e-4, 1e-2, 0.1, 1.0, 10.0, 1e3}) {
        for (const size_t k : {70, 300}) {
            if (small_shapes() && k == 300) {
                continue;
            }
            const size_t n = small_shapes() ? 40 : 300;
            Problem p = as_diagonal(mixture(n, k, 10, scale, true, 110), 111);
            p.model.weights[3] = 0; // never chosen
            check_diagonal(p);
            CHECK(accumulate(*cuda_engine(), p, Pass::soft).counts[3] == 0);
        }
    }
}

TEST_CASE("cuda: diagonal covariances on awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = small_shapes() ? 50 : 300, d = 24;
    const size_t k = small_shapes() ? 70 : 150;
    auto check = [&](const char* name,
                     double scale,
                     double ratio,
                     const std::function<void(Rows&, Rows&)>& change,
                     const std::function<void(Model&)>& change_model = {}) {
        Rows x = normal_rows(n, d, 11), c = normal_rows(k, d, 12);
        change(x, c);
        Problem p = as_diagonal(
                as_mixture(make_problem(name, centroid_model(c), x), scale, 13),
                14,
                false,
                ratio);
        if (change_model) {
            change_model(p.model);
        }
        check_diagonal(p);
    };
    auto times = [](Rows& rows, size_t j, float factor, float offset) {
        for (size_t i = 0; i < rows.n; i++) {
            float& value = rows.x[i * rows.d + j];
            value = value * factor + offset;
        }
    };
    const auto nothing = [](Rows&, Rows&) {};
    check("identical vectors", 1, 4, [](Rows& x, Rows&) {
        for (size_t i = 1; i < x.n; i++) {
            std::copy_n(x.row(0), x.d, &x.x[i * x.d]);
        }
    });
    check("vectors on means", 1, 4, [](Rows& x, Rows& c) {
        for (size_t i = 0; i < x.n; i++) {
            std::copy_n(c.row(i % c.n), c.d, &x.x[i * x.d]);
        }
    });
    for (const float factor : {1e12f, 1e-12f}) {
        check("huge or tiny", 1, 4, [&](Rows& x, Rows& c) {
            for (size_t j = 0; j < x.d; j++) {
                times(x, j, factor, 0);
                times(c, j, factor, 0);
            }
        });
    }
    check("constant offset", 1, 4, [&](Rows& x, Rows& c) {
        for (size_t j = 0; j < x.d; j++) {
            times(x, j, 1, 1e4f);
            times(c, j, 1, 1e4f);
        }
    });
    check(
            "dimensions without variance",
            1,
            4,
            [&](Rows& x, Rows& c) {
                for (const size_t j : {0, 5, 23}) {
                    times(x, j, 0, 7);
                    times(c, j, 0, 7);
                }
            },
            [&](Model& model) {
                for (size_t i = 0; i < model.k; i++) {
                    for (const size_t j : {0, 5, 23}) {
                        model.variances[i * d + j] = 1e-7f;
                    }
                }
            });
    check(
            "dimensions of all units",
            1,
            2,
            [&](Rows& x, Rows& c) {
                for (size_t j = 0; j < x.d; j++) {
                    const float factor = std::pow(10.f, float(j % 9) - 4);
                    times(x, j, factor, factor);
                    times(c, j, factor, factor);
                }
            },
            [&](Model& model) {
                for (size_t i = 0; i < model.variances.size(); i++) {
                    model.variances[i] =
                            std::pow(100.f, float(i % d % 9) - 4) * (1 + i % 3);
                }
            });
    for (const float factor : {30.f, 1000.f, 1e7f}) {
        check("far outliers", 0.1, 4, [&](Rows& x, Rows&) {
            for (size_t i = 0; i < x.n * x.d; i++) {
                x.x[i] *= i / x.d % 50 == 0 ? factor : 1;
            }
        });
    }
    check("variances of all sizes", 1, 1000, nothing);
    check("collapsed components", 1, 4, nothing, [&](Model& model) {
        for (size_t c = 0; c < model.k; c += 3) {
            std::fill_n(&model.variances[c * d], d, 1e-9f);
        }
    });
    check("one heavy component", 1, 4, nothing, [](Model& model) {
        model.weights.assign(model.k, 1e-12f);
        model.weights[17] = 1;
    });
}

TEST_CASE("cuda: diagonal covariances that all rows share", "[cuda]") {
    if (no_device()) {
        return;
    }
    // too many rows for shares of all components: dense
    for (const size_t d : {5, 100}) {
        const size_t n = small_shapes() ? 1030 : 2500;
        const size_t k = small_shapes() ? 66 : 300;
        Problem p = as_diagonal(mixture(n, k, d, 30, true, 41), 42);
        check_diagonal(p);
    }
}

TEST_CASE("cuda: diagonal covariances far beyond single precision", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const size_t k : {33, 200}) {
        Problem p = make_problem(
                "norms of 1e25",
                centroid_model(normal_rows(k, 12, 103)),
                normal_rows(40, 12, 104, 1e25));
        p = as_diagonal(as_mixture(p, 1, 105), 106);
        p.model.variances.assign(k * 12, 1e-3f);
        const Statistics stats = accumulate(*cuda_engine(), p, Pass::soft);
        double count = 0;
        for (const double c : stats.counts) {
            count += c;
        }
        CHECK(std::abs(count - p.n()) <= 1e-6 * p.n());
        CHECK(!std::isnan(stats.log_likelihood));
        for (size_t i = 0; i < k * 12; i++) {
            CHECK(std::isfinite(stats.sums[i]));
            CHECK(std::isfinite(stats.energy[i]));
        }
    }
}

TEST_CASE("cuda: diagonal covariances streamed equal resident", "[cuda]") {
    if (no_device() || small_shapes()) {
        return;
    }
    const size_t n = 300000, k = 70, d = 20;
    Problem p;
    p.name = "streamed";
    p.rows = normal_rows(n, d, 32);
    p.model = centroid_model(normal_rows(k, d, 31));
    p.model.weights.assign(k, 1.0f / k);
    p.model.variances.resize(k * d);
    // few components per vector; a mix of tiles and dense rows
    for (const float variance : {0.3f, 3.0f}) {
        for (size_t i = 0; i < k * d; i++) {
            p.model.variances[i] = variance * (1 + 0.1f * (i % 7));
        }
        p.weights.clear();
        for (const bool weighted : {false, true}) {
            if (weighted) {
                p.weights = random_weights(n, 33);
            }
            check_repeats(p, 3, size_t(150) << 20);
        }
    }
}
