// Every engine, on every instruction set of this CPU, against an oracle in
// double precision: see engine_checks.h for what is checked and how tightly.

#include <tests/engine_util.h>

using namespace test;

TEST_CASE("the instruction sets that are tested") {
    std::string names;
    for (const auto& set : instruction_sets()) {
        names += " " + set.first;
    }
    WARN("CPU kernels covered here:" << names);
    CHECK(!instruction_sets().empty());
#if defined(__x86_64__)
    // beside the portable one, these where the CPU has them
    CHECK(instruction_sets().count("AVX2") ==
          (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
    CHECK(instruction_sets().count("AVX3") ==
          (__builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl")));
#endif
}

TEST_CASE("engines are exact on shapes around every tile and panel width") {
    // rows: micro-kernels have 2, 6 or 12, blocks 96; columns: panels have
    // 8, 16 or 32, tiles 256
    const size_t ns[] = {1, 5, 6, 7, 11, 12, 13, 95, 96, 97, 191, 193};
    const size_t ks[] = {1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 331};
    const size_t ds[] = {1, 3, 7, 96, 100, 128};
    for (size_t di = 0; di < 6; di++) {
        for (size_t i = 0; i < 12; i++) {
            const size_t n = ns[i], k = ks[(5 * i + 7 * di) % 12];
            const bool product = (i + di) % 3 == 2;
            const Problem p = random_problem(
                    n,
                    k,
                    ds[di],
                    product ? Metric::inner_product : Metric::l2,
                    i % 2 == 1,
                    product             ? 0
                            : i % 4 < 2 ? 0.3
                                        : 3,
                    uint32_t(100 * di + i));
            on_each_engine([&](const Engine& engine) {
                check_all(engine, p, std::min<size_t>(k, 1 + i % 5));
            });
        }
    }
}

TEST_CASE("engines are exact in many dimensions") {
    for (const size_t d : {768, 1536}) {
        for (const size_t k : {1, 33, 70}) {
            for (const Metric metric : {Metric::l2, Metric::inner_product}) {
                const Problem p = random_problem(
                        49, k, d, metric, false, 1, uint32_t(d + k));
                on_each_engine([&](const Engine& engine) {
                    check_all(engine, p, std::min<size_t>(k, 3));
                });
            }
        }
    }
}

TEST_CASE("engines are exact for the m best, m up to k") {
    const Problem p = random_problem(29, 300, 5, Metric::l2, false, 2, 31);
    const Problem q =
            random_problem(29, 300, 5, Metric::inner_product, false, 0, 32);
    for (const size_t m : {1, 2, 3, 16, 17, 255, 256, 257, 299, 300}) {
        on_each_engine([&](const Engine& engine) {
            check_nearest(engine, p, m);
            check_nearest(engine, q, m);
            check_responsibilities(engine, p, m);
        });
    }
}

TEST_CASE("engines are exact for thousands of centroids and few vectors") {
    // soft chunks hold fewer rows than a block row when k is large
    const Problem p = random_problem(37, 5003, 7, Metric::l2, true, 1, 41);
    on_each_engine([&](const Engine& engine) { check_all(engine, p, 17); });
    const Problem q = random_problem(3, 4099, 3, Metric::l2, false, 1, 42);
    on_each_engine([&](const Engine& engine) { check_all(engine, q, 4099); });
}

TEST_CASE("engines are exact over several chunks") {
    // hard passes take 65472 rows at a time
    const Problem hard = random_problem(131100, 5, 3, Metric::l2, true, 0, 51);
    // soft ones 2²³ / k, here 2784
    const Problem soft =
            random_problem(6007, 3011, 2, Metric::l2, true, 0.5, 52);
    check_hard(cpu_engine(), hard);
    check_soft(cpu_engine(), soft);
}

TEST_CASE("engines are exact on real vectors") {
    const Rows all = real_rows(3000);
    Rows centroids{61, all.d, {}};
    for (size_t c = 0; c < centroids.n; c++) {
        const float* row = all.row(37 * c);
        centroids.x.insert(centroids.x.end(), row, row + all.d);
    }
    for (const Metric metric : {Metric::l2, Metric::inner_product}) {
        Problem p = make_problem(
                "wallsift", centroid_model(centroids, metric), all);
        if (metric == Metric::l2) {
            p = as_mixture(std::move(p), 1, 61);
        }
        on_each_engine([&](const Engine& engine) { check_all(engine, p, 5); });
    }
}

namespace {

/// Problems that strain single precision.
std::vector<Problem> awkward_problems() {
    std::vector<Problem> problems;
    const auto add = [&](const char* name,
                         const Rows& rows,
                         const Rows& centroids,
                         double scale) {
        Problem p = make_problem(name, centroid_model(centroids), rows);
        problems.push_back(as_mixture(p, scale, 91));
        p.model.metric = Metric::inner_product;
        problems.push_back(p);
    };
    const size_t n = 103, k = 41;
    for (const size_t d : {5, 96}) {
        add("norms of 1e15",
            normal_rows(n, d, 92, 1e15),
            normal_rows(k, d, 93, 1e15),
            1);
        add("norms of 1e15 and of 1",
            normal_rows(n, d, 92, 1),
            normal_rows(k, d, 93, 1e15),
            1);
        add("values of 1e-10",
            normal_rows(n, d, 92, 1e-10),
            normal_rows(k, d, 93, 1e-10),
            1);
        add("offset 1e4, spread 0.1",
            normal_rows(n, d, 92, 0.1, 1e4),
            normal_rows(k, d, 93, 0.1, 1e4),
            1);
        add("offset -1e6, spread 1",
            normal_rows(n, d, 92, 1, -1e6),
            normal_rows(k, d, 93, 1, -1e6),
            1);
        add("vectors far from all centroids",
            normal_rows(n, d, 92, 1, 100),
            normal_rows(k, d, 93, 1),
            0.01);

        Rows rows = normal_rows(n, d, 92), centroids = normal_rows(k, d, 93);
        for (size_t i = 0; i < n; i++) {
            rows.x[i * d] = 7e5f;
            rows.x[i * d + d - 1] = -3;
        }
        for (size_t c = 0; c < k; c++) {
            centroids.x[c * d] = 7e5f;
            centroids.x[c * d + d - 1] = 2;
        }
        add("constant columns", rows, centroids, 1);

        centroids.x.assign(rows.x.begin(), rows.x.begin() + k * d);
        add("vectors on their centroids", rows, centroids, 1);

        rows = normal_rows(n, d, 92);
        centroids = normal_rows(k, d, 93);
        for (size_t c = 0; c < k; c += 4) {
            for (size_t j = 0; j < d; j++) {
                centroids.x[c * d + j] += 3e5f;
            }
        }
        add("a quarter of the centroids far away", rows, centroids, 1);

        add(
                "small integers",
                [&] {
                    Rows r = normal_rows(n, d, 94, 2);
                    for (float& v : r.x) {
                        v = std::round(v);
                    }
                    return r;
                }(),
                [&] {
                    Rows r = normal_rows(k, d, 95, 2);
                    for (float& v : r.x) {
                        v = std::round(v);
                    }
                    return r;
                }(),
                1);
        add("all vectors and centroids zero",
            Rows{n, d, std::vector<float>(n * d)},
            Rows{k, d, std::vector<float>(k * d)},
            1);
    }
    return problems;
}

} // namespace

TEST_CASE("engines are exact on data that strains single precision") {
    for (const Problem& p : awkward_problems()) {
        on_each_engine([&](const Engine& engine) { check_all(engine, p, 4); });
    }
}

TEST_CASE("engines rank as far as single precision reaches in tiny numbers") {
    // squares of 1e-20 are denormal, those of 1e-25 and of denormals are 0
    for (const double spread : {1e-20, 1e-25, 1e-40}) {
        const Problem p = make_problem(
                "values of " + std::to_string(spread),
                centroid_model(normal_rows(33, 12, 101, spread)),
                normal_rows(40, 12, 102, spread));
        on_each_engine([&](const Engine& engine) {
            check_hard(engine, p);
            check_nearest(engine, p, 33);
        });
    }
}

TEST_CASE("engines give labels for finite vectors whose norms overflow") {
    // ‖x‖² is above the largest float, x·c is not
    const Problem p = make_problem(
            "norms of 1e25",
            centroid_model(normal_rows(33, 12, 103), Metric::inner_product),
            normal_rows(40, 12, 104, 1e25));
    on_each_engine([&](const Engine& engine) {
        check_nearest(engine, p, 1);
        check_nearest(engine, p, 5);
        const Statistics stats = accumulate(engine, p, Pass::hard);
        const Nearest found = nearest(engine, p, 1);
        std::vector<int64_t> members(p.k());
        for (const idx_t label : found.labels) {
            members[label]++;
        }
        CHECK(stats.members == members);
    });
    // all distances overflow: any labels, but valid and distinct ones
    Problem far = p;
    far.model.metric = Metric::l2;
    far = as_mixture(far, 1, 105);
    std::fill(far.model.variances.begin(), far.model.variances.end(), 1e-3f);
    on_each_engine([&](const Engine& engine) {
        for (const Nearest& found :
             {nearest(engine, far, 5),
              Nearest{responsibilities(engine, far, 5).labels, {}}}) {
            for (size_t i = 0; i < far.n(); i++) {
                std::set<idx_t> seen;
                for (size_t j = 0; j < 5; j++) {
                    const idx_t label = found.labels[i * 5 + j];
                    CHECK(label >= -1);
                    CHECK(label < (idx_t)far.k());
                    CHECK((label == -1 || seen.insert(label).second));
                }
                CHECK(!seen.empty());
            }
        }
        const Statistics stats = accumulate(engine, far, Pass::soft);
        double count = 0;
        for (const double c : stats.counts) {
            count += c;
        }
        CHECK(std::abs(count - far.n()) <= 1e-6 * far.n());
        CHECK(!std::isnan(stats.log_likelihood));
    });
}

TEST_CASE("responsibilities are exact from one component to all") {
    // scale: from near-hard assignment to every component holding a share
    for (const double scale : {1e-4, 1e-2, 0.1, 1.0, 10.0, 1e3}) {
        Problem p = random_problem(
                64, 70, 10, Metric::l2, true, scale, uint32_t(110));
        p.name += ", scale " + std::to_string(scale);
        p.model.weights[3] = 0; // never chosen
        on_each_engine([&](const Engine& engine) {
            check_soft(engine, p);
            check_responsibilities(engine, p, 1);
            check_responsibilities(engine, p, 69);
            CHECK(accumulate(engine, p, Pass::soft).counts[3] == 0);
        });
    }
}

TEST_CASE("what a soft pass drops is below its bound, vector by vector") {
    // many components at the edge of what is kept
    const size_t k = 400, d = 3;
    Rows centroids = normal_rows(k, d, 121, 3);
    Problem all = make_problem(
            "edge", centroid_model(centroids), normal_rows(60, d, 122, 2));
    all = as_mixture(all, 2, 123);
    double most = 0;
    for (size_t i = 0; i < all.n(); i++) {
        Rows one{1, d, {all.rows.row(i), all.rows.row(i) + d}};
        Problem p = make_problem("one vector", all.model, one);
        check_soft(cpu_engine(), p);
        most = std::max(
                most, accumulate(cpu_engine(), p, Pass::soft).dropped_mass);
    }
    CHECK(most > 0); // something was dropped: the bound was tested
    CHECK(most == accumulate(cpu_engine(), all, Pass::soft).dropped_mass);
}

TEST_CASE("a soft pass finds close components far from the centre") {
    // pairs of components a few standard deviations apart, the pairs so far
    // apart that single-precision scores are off by tens of nats
    const size_t pairs = 20, d = 8;
    const float sigma = 0.1f;
    const Rows centers = normal_rows(pairs, d, 191, 1000);
    Rows centroids{2 * pairs, d, {}};
    Rows rows = normal_rows(200, d, 192, sigma);
    for (size_t c = 0; c < 2 * pairs; c++) {
        for (size_t j = 0; j < d; j++) {
            centroids.x.push_back(
                    centers.row(c / 2)[j] + (c % 2) * (j + 1) * sigma / 4);
        }
    }
    for (size_t i = 0; i < rows.n; i++) {
        for (size_t j = 0; j < d; j++) {
            rows.x[i * d + j] += centroids.row(i % (2 * pairs))[j];
        }
    }
    Problem p = make_problem("pairs", centroid_model(centroids), rows);
    p.model.variances.assign(2 * pairs, sigma * sigma);
    p.model.weights.assign(2 * pairs, 0.5f / pairs);
    on_each_engine([&](const Engine& engine) {
        check_soft(engine, p);
        check_responsibilities(engine, p, 1);
        check_responsibilities(engine, p, 2);
    });
}
