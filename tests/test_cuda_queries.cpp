// The m nearest centroids and the m largest responsibilities on the CUDA
// engine.

#include <functional>

#include <tests/cuda_util.h>

using namespace test;

TEST_CASE("cuda: the m nearest and the m largest shares", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const size_t k : {3, 20, 130, 300, 1500, 4500}) {
        for (const size_t d : {5, 64, 128, 200}) {
            const size_t m = std::min<size_t>(k, 1 + (k + d) % 16);
            Problem p = mixture(130, k, d, 0.2, false, uint32_t(k + d));
            check_nearest(*cuda_engine(), p, m);
            check_nearest(*cuda_engine(), p, std::min<size_t>(k, 2));
            check_responsibilities(*cuda_engine(), p, m);
            p.model.metric = Metric::inner_product;
            check_nearest(*cuda_engine(), p, m);
        }
    }
    // more than lists are made for
    const Problem p = mixture(50, 300, 8, 1, false, 171);
    check_nearest(*cuda_engine(), p, 17);
    check_nearest(*cuda_engine(), p, 300);
    check_responsibilities(*cuda_engine(), p, 300);
}

TEST_CASE("cuda: the m nearest on awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = 200, k = 150, d = 24;
    auto check = [&](const char* name,
                     const std::function<void(Rows&, Rows&)>& change) {
        Rows x = normal_rows(n, d, 181), c = normal_rows(k, d, 182);
        change(x, c);
        for (const Metric metric : {Metric::l2, Metric::inner_product}) {
            const Problem p = make_problem(name, centroid_model(c, metric), x);
            check_nearest(*cuda_engine(), p, 2);
            check_nearest(*cuda_engine(), p, 16);
        }
    };
    check("constant offset", [](Rows& x, Rows& c) {
        for (float& v : x.x) {
            v += 1e4f;
        }
        for (float& v : c.x) {
            v += 1e4f;
        }
    });
    check("far outliers", [](Rows& x, Rows& c) {
        for (size_t i = 0; i < x.x.size(); i += 50 * x.d) {
            x.x[i] = 1e9f;
        }
        c.x[5] = -1e7f;
    });
    check("equal centroids", [](Rows&, Rows& c) {
        for (size_t i = 1; i < c.n; i++) {
            std::copy_n(c.row(i / 40), c.d, &c.x[i * c.d]);
        }
    });
    check("all zero", [](Rows& x, Rows& c) {
        x.x.assign(x.x.size(), 0);
        c.x.assign(c.x.size(), 0);
    });
}

TEST_CASE("cuda: responsibilities of diagonal covariances", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const size_t k : {1, 2, 40, 300, 1500, 4500}) {
        for (const size_t d : {1, 9, 96, 128, 200}) {
            const size_t m = std::min<size_t>(k, 1 + (k + d) % 16);
            const size_t n = k < 1000 ? 130 : 20;
            for (const bool tied : {false, true}) {
                // narrow, usual and wide components
                const double scale = d == 9 ? 0.1 : d == 96 ? 1 : 3;
                const Problem p = as_diagonal(
                        mixture(n, k, d, scale, false, uint32_t(k + d)),
                        uint32_t(d),
                        tied);
                check_responsibilities(*cuda_engine(), p, m);
                check_responsibilities(
                        *cuda_engine(), p, std::min<size_t>(k, 2));
            }
        }
    }
    // more than shortlists are made for
    const Problem p = as_diagonal(mixture(50, 60, 8, 1, false, 173), 8, false);
    check_responsibilities(*cuda_engine(), p, 60);
}

TEST_CASE("cuda: shares of awkward diagonal mixtures", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = 200, k = 150, d = 24;
    auto check = [&](const char* name,
                     const std::function<void(Problem&)>& change) {
        Problem p = as_diagonal(mixture(n, k, d, 1, false, 191), 9, false);
        change(p);
        const Problem changed = make_problem(name, p.model, p.rows);
        check_responsibilities(*cuda_engine(), changed, 3);
    };
    check("far vectors", [&](Problem& p) {
        for (size_t i = 0; i < n; i += 9) {
            p.rows.x[i * d + i % d] += i % 2 ? 1e6f : 300;
        }
    });
    check("collapsed, no weight", [&](Problem& p) {
        std::copy_n(p.rows.row(3), d, &p.model.means[7 * d]);
        std::fill_n(&p.model.variances[7 * d], d, 1e-8f);
        p.model.variances[11 * d + 4] = 1e-10f;
        p.model.weights[9] = 0;
    });
    check("equal components", [&](Problem& p) {
        for (size_t c = 1; c < k; c++) {
            std::copy_n(&p.model.means[c / 3 * d], d, &p.model.means[c * d]);
            std::copy_n(
                    &p.model.variances[c / 3 * d],
                    d,
                    &p.model.variances[c * d]);
            p.model.weights[c] = p.model.weights[c / 3];
        }
    });
    check("all components equal", [&](Problem& p) {
        for (size_t c = 1; c < k; c++) {
            std::copy_n(p.model.means.data(), d, &p.model.means[c * d]);
            std::copy_n(p.model.variances.data(), d, &p.model.variances[c * d]);
        }
    });
    check("offset", [&](Problem& p) {
        for (float& v : p.rows.x) {
            v += 100;
        }
        for (float& v : p.model.means) {
            v += 100;
        }
    });
}
