// Soft passes and responsibilities with diagonal covariances, every engine
// against the oracle in double precision.

#include <tests/engine_util.h>

using namespace test;

namespace {

void check_mixture(const Problem& p, size_t m) {
    on_each_engine([&](const Engine& engine) {
        check_soft(engine, p);
        check_responsibilities(engine, p, m);
    });
}

} // namespace

TEST_CASE("diagonal mixtures are exact on shapes around every tile") {
    const size_t ns[] = {1, 6, 13, 96, 97};
    const size_t ks[] = {1, 2, 17, 33, 257};
    const size_t ds[] = {1, 2, 3, 7, 16, 100};
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 6; j++) {
            const size_t k = ks[(i + 2 * j) % 5];
            const bool weighted = (i + j) % 2 == 1;
            const double scale = i % 2 ? 0.3 : 3;
            const Problem p = random_problem(
                    ns[i],
                    k,
                    ds[j],
                    Metric::l2,
                    weighted,
                    scale,
                    uint32_t(10 * i + j));
            check_mixture(as_diagonal(p, 1), std::min<size_t>(k, 1 + i));
            check_mixture(as_diagonal(p, 2, true), std::min<size_t>(k, 1 + i));
        }
    }
}

TEST_CASE("diagonal mixtures are exact in many dimensions and real ones") {
    const Problem p = random_problem(49, 33, 768, Metric::l2, false, 1, 21);
    check_mixture(as_diagonal(p, 3), 2);
    const Rows all = real_rows(600);
    Rows centroids{61, all.d, {}};
    centroids.x.assign(all.x.begin(), all.x.begin() + 61 * all.d);
    const Problem q = make_problem("wallsift", centroid_model(centroids), all);
    check_mixture(as_diagonal(as_mixture(q, 1, 22), 4), 5);
    check_mixture(as_diagonal(as_mixture(q, 1, 22), 4, true), 5);
}

TEST_CASE("diagonal variances may differ by orders of magnitude") {
    for (const double ratio : {1.0, 100.0, 1e4}) {
        const Problem p = random_problem(
                120, 90, 11, Metric::l2, true, 1, uint32_t(ratio));
        check_mixture(as_diagonal(p, 5, false, ratio), 4);
        check_mixture(as_diagonal(p, 6, true, ratio), 4);
    }
}

TEST_CASE("diagonal mixtures are exact over several chunks") {
    const Problem p = random_problem(6007, 3011, 2, Metric::l2, true, 0.5, 31);
    check_soft(cpu_engine(), as_diagonal(p, 7));
}

TEST_CASE("diagonal mixtures are exact on data that strains floats") {
    const size_t n = 103, k = 41, d = 6;
    const auto check = [&](const char* name, const Rows& rows, const Rows& c) {
        const Problem p =
                as_mixture(make_problem(name, centroid_model(c), rows), 1, 91);
        check_mixture(as_diagonal(p, 8), 4);
        check_mixture(as_diagonal(p, 9, true), 4);
    };
    const auto pair = [&](const char* name, double spread, double mean) {
        check(name,
              normal_rows(n, d, 92, spread, mean),
              normal_rows(k, d, 93, spread, mean));
    };
    pair("norms of 1e15", 1e15, 0);
    pair("values of 1e-10", 1e-10, 0);
    pair("offset 1e4, spread 0.1", 0.1, 1e4);
    pair("offset -1e6, spread 1", 1, -1e6);

    Rows rows = normal_rows(n, d, 92), centroids = normal_rows(k, d, 93);
    for (size_t i = 0; i < n; i++) {
        rows.x[i * d] = 7e5f;
    }
    for (size_t c = 0; c < k; c++) {
        centroids.x[c * d] = 7e5f;
    }
    check("a constant column", rows, centroids);
    centroids.x.assign(rows.x.begin(), rows.x.begin() + k * d);
    check("vectors on their centroids", rows, centroids);
    for (size_t c = 0; c < k; c += 4) {
        centroids.x[c * d + 1] += 3e5f;
    }
    check("a quarter of the centroids far away", rows, centroids);
    for (size_t i = 0; i < n; i += 9) {
        rows.x[i * d + 2] = -1e6f;
    }
    check("far vectors", rows, centroids);
    check("zeros",
          Rows{n, d, std::vector<float>(n * d)},
          Rows{k, d, std::vector<float>(k * d)});
}

TEST_CASE("a column that is almost constant keeps what others say") {
    // its variance is a millionth, and some vectors are elsewhere in it
    Problem p = random_problem(200, 30, 5, Metric::l2, false, 1, 41);
    for (size_t i = 0; i < p.n(); i++) {
        p.rows.x[i * 5 + 4] = i % 3 ? 0 : 0.1f;
    }
    for (size_t c = 0; c < p.k(); c++) {
        p.model.means[c * 5 + 4] = 0;
    }
    p.model.make_diagonal();
    for (size_t c = 0; c < p.k(); c++) {
        p.model.variances[c * 5 + 4] = 1e-6f;
    }
    p = make_problem("a dead column", p.model, p.rows);
    check_mixture(p, 3);
}

TEST_CASE("scores that overflow leave every component to be looked at") {
    // variances of 1e-30 and a component where the vector is
    Problem p = random_problem(20, 40, 4, Metric::l2, false, 1, 51);
    p.model.make_diagonal();
    for (float& variance : p.model.variances) {
        variance *= 1e-30f;
    }
    for (size_t i = 0; i < p.n(); i++) {
        for (size_t j = 0; j < 4; j++) {
            p.rows.x[i * 4 + j] *= 1e6f;
            p.model.means[i * 4 + j] = p.rows.x[i * 4 + j];
        }
    }
    p = make_problem("a point mass each", p.model, p.rows);
    on_each_engine([&](const Engine& engine) {
        const Responsibilities found = responsibilities(engine, p, 1);
        for (size_t i = 0; i < p.n(); i++) {
            CHECK(found.labels[i] == (idx_t)i);
            CHECK(found.r[i] == 1);
        }
    });
}

TEST_CASE("equal variances in all dimensions are a spherical mixture") {
    for (const size_t d : {1, 5, 64}) {
        const Problem p = random_problem(
                300, 50, d, Metric::l2, true, 1, uint32_t(60 + d));
        Problem q = p;
        q.model.make_diagonal();
        on_each_engine([&](const Engine& engine) {
            const Statistics a = accumulate(engine, p, Pass::soft);
            const Statistics b = accumulate(engine, q, Pass::soft);
            Worst sums, counts, energy;
            for (size_t c = 0; c < p.k(); c++) {
                counts.see(
                        std::abs(a.counts[c] - b.counts[c]),
                        1e-5 * a.counts[c] + 1e-5,
                        c);
                double total = 0;
                for (size_t j = 0; j < d; j++) {
                    const size_t at = c * d + j;
                    sums.see(
                            std::abs(a.sums[at] - b.sums[at]),
                            1e-5 * a.counts[c] + 1e-5,
                            at);
                    total += d == 1 ? b.energy[c] : b.energy[at];
                }
                energy.see(
                        std::abs(a.energy[c] - total),
                        1e-5 * a.energy[c] + 1e-5,
                        c);
            }
            CHECK_WORST(sums);
            CHECK_WORST(counts);
            CHECK_WORST(energy);
            CHECK(std::abs(a.log_likelihood - b.log_likelihood) <=
                  1e-6 * std::abs(a.log_likelihood));
        });
    }
}

TEST_CASE("diagonal passes have the same bytes with any number of threads") {
    const Problem p = as_diagonal(
            random_problem(700, 60, 9, Metric::l2, true, 3, 71), 10);
    const auto run = [&](int threads) {
        Threads scope(threads);
        return accumulate(cpu_engine(), p, Pass::soft);
    };
    const Statistics one = run(1);
    for (const int threads : {2, 5}) {
        const Statistics many = run(threads);
        CHECK(same_bytes(one.sums, many.sums));
        CHECK(same_bytes(one.counts, many.counts));
        CHECK(same_bytes(one.energy, many.energy));
        CHECK(one.log_likelihood == many.log_likelihood);
    }
}

TEST_CASE("statistics of parts of a diagonal pass add up") {
    const Problem p =
            as_diagonal(random_problem(90, 7, 4, Metric::l2, true, 2, 81), 11);
    const Statistics whole = accumulate(cpu_engine(), p, Pass::soft);
    Statistics sum;
    for (const size_t part : {0, 1}) {
        Problem half = p;
        half.rows.n = 45;
        half.rows.x.erase(
                half.rows.x.begin() + (part ? 0 : 45 * 4),
                half.rows.x.begin() + (part ? 45 * 4 : 90 * 4));
        half.weights.erase(
                half.weights.begin() + (part ? 0 : 45),
                half.weights.begin() + (part ? 45 : 90));
        const Statistics stats = accumulate(cpu_engine(), half, Pass::soft);
        if (part == 0) {
            sum = stats;
        } else {
            sum.add(stats);
        }
    }
    REQUIRE(sum.energy.size() == whole.energy.size());
    for (size_t i = 0; i < sum.energy.size(); i++) {
        CHECK(std::abs(sum.energy[i] - whole.energy[i]) <=
              1e-12 * whole.energy[i] + 1e-300);
    }
}
