// The m nearest centroids and the m largest responsibilities on the CUDA
// engine.

#include <functional>

#include <faiss_flash/AssignmentPolicy.h>
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

TEST_CASE(
        "cuda: responsibilities of diagonal covariances are the CPU engine's",
        "[cuda]") {
    if (no_device()) {
        return;
    }
    using faiss_flash::AssignmentPolicy;
    using faiss_flash::cpu_engine;
    for (const size_t k : {1, 40, 300}) {
        for (const bool tied : {false, true}) {
            const Problem p = as_diagonal(
                    mixture(500, k, 9, 0.5, true, uint32_t(k)), 8, tied);
            INFO(p.name);
            const size_t m = std::min<size_t>(k, 2);
            const auto found = responsibilities(*cuda_engine(), p, m);
            const auto expected = responsibilities(cpu_engine(), p, m);
            CHECK(found.labels == expected.labels);
            CHECK(same_bytes(found.r, expected.r));
            CHECK(same_bytes(found.log_likelihood, expected.log_likelihood));

            const auto policy = AssignmentPolicy::responsibility(0.1, int(m));
            std::vector<idx_t> lists[2];
            for (const bool cuda : {false, true}) {
                lists[cuda].assign(p.n() * m, -7);
                faiss_flash::assign_lists(
                        policy,
                        cuda ? *cuda_engine() : cpu_engine(),
                        p.model,
                        p.n(),
                        p.rows.x.data(),
                        lists[cuda].data());
            }
            CHECK(lists[0] == lists[1]);
        }
    }
}
