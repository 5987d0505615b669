// Soft passes over blocks with many rows that all components share. Cases
// that need a device say so where there is none, and CTest then counts them
// as skipped.

#include <cmath>
#include <functional>

#include <tests/cuda_util.h>
#include <tests/gmm_util.h>

using namespace test;

namespace {

/// Rows that hold shares of all of k wide components.
Problem dense_problem(size_t n, size_t k, size_t d, float offset = 0) {
    Rows x = normal_rows(n, d, 201), c = normal_rows(k, d, 202);
    for (float& v : x.x) {
        v += offset;
    }
    for (float& v : c.x) {
        v = 0.3f * v + offset;
    }
    Problem p;
    p.name = "dense";
    p.model = centroid_model(c);
    p.rows = x;
    p.model.weights.assign(k, 1.0f / k);
    for (size_t i = 0; i < k; i++) {
        p.model.variances.push_back(1 + 0.01f * (i % 20));
    }
    return p;
}

/// Component c collapses on row i.
void collapse(Problem& p, size_t c, size_t i, float variance = 1e-7f) {
    const size_t d = p.d();
    std::copy_n(p.rows.row(i % p.n()), d, &p.model.means[c * d]);
    const size_t per = p.model.variances.size() / p.k();
    std::fill_n(&p.model.variances[c * per], per, variance);
}

/// Two passes on the CUDA engine with the statistics of the reference.
/// @param size  what sums of vectors are relative to
void check_dense(const Problem& p, float size = 1) {
    INFO("n = " << p.n() << ", k = " << p.k() << ", d = " << p.d());
    const Statistics expected =
            accumulate(faiss_flash::reference_engine(), p, Pass::soft);
    const size_t k = p.k(), d = p.d(), per = expected.energy.size() / k;
    for (const Statistics& found : two_passes(p)) {
        CHECK(found.n == (int64_t)p.n());
        CHECK(relative_gap(found.total_weight, expected.total_weight) < 1e-9);
        CHECK(found.dropped_mass <= faiss_flash::max_dropped_mass);
        CHECK(std::abs(found.log_likelihood - expected.log_likelihood) <=
              1e-3 * expected.total_weight +
                      1e-7 * std::abs(expected.log_likelihood));
        Worst count, energy, sum;
        int64_t members = 0, moved = 0;
        for (size_t i = 0; i < k; i++) {
            const double weight = expected.counts[i];
            // what is left out may be a 2⁻²⁰ of every row
            const double least = 1e-6 * p.n() / k;
            count.see(
                    std::abs(found.counts[i] - weight),
                    1e-4 * weight + least,
                    i);
            for (size_t j = 0; j < per; j++) {
                const double of = expected.energy[i * per + j];
                energy.see(
                        std::abs(found.energy[i * per + j] - of),
                        1e-4 * of + 3 * least * d / per,
                        i,
                        j);
            }
            for (size_t j = 0; j < d; j++) {
                sum.see(std::abs(
                                found.sums[i * d + j] -
                                expected.sums[i * d + j]),
                        (1e-4 * weight + least) * size,
                        i,
                        j);
            }
            members += found.members[i];
            moved += std::abs(found.members[i] - expected.members[i]);
        }
        CHECK_WORST(count);
        CHECK_WORST(energy);
        CHECK_WORST(sum);
        CHECK(members == (int64_t)p.n());
        CHECK(moved <= (int64_t)p.n() / 500 + 2); // near ties go either way
    }
}

} // namespace

TEST_CASE("cuda: dense rows around every tile", "[cuda]") {
    if (no_device()) {
        return;
    }
    struct Shape {
        size_t n, k, d;
        float offset;
    };
    for (const Shape& s :
         {Shape{2500, 300, 100, 0},
          Shape{1024, 127, 64, 0},
          Shape{1025, 128, 65, 1},
          Shape{1500, 129, 129, 3},
          Shape{1100, 700, 5, -50},
          Shape{1200, 65, 96, 0},
          Shape{1300, 257, 128, 0.5f},
          Shape{1100, 66, 300, 0},
          Shape{9000, 70, 8, 2}}) {
        if (small_shapes() && s.n * s.k > 150000) {
            continue;
        }
        check_dense(
                dense_problem(s.n, s.k, s.d, s.offset), 1 + std::abs(s.offset));
    }
}

TEST_CASE("cuda: collapsed components among dense rows", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = small_shapes() ? 1030 : 5000;
    for (const size_t d : {20, 128}) {
        Problem p = dense_problem(n, 200, d);
        collapse(p, 0, 7);
        check_dense(p);
        collapse(p, 131, 900);
        collapse(p, 199, 1000, 1e-4f);
        check_dense(p);
        // two on one vector, another between vectors
        collapse(p, 64, 7);
        collapse(p, 65, 0, 1e-3f);
        p.model.means[65 * d] += 0.1f;
        // of all sizes
        for (size_t c = 66; c < 80; c++) {
            collapse(p, c, 20 * c, std::pow(10.f, -float(c - 66) / 2));
        }
        check_dense(p);
        if (small_shapes()) {
            continue;
        }
        // nearly all: no products any more
        for (size_t c = 70; c < 190; c++) {
            collapse(p, c, 20 * c);
        }
        check_dense(p);
    }
}

TEST_CASE("cuda: dense rows of awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = 2100, k = 130, d = 24;
    // identical vectors on a collapsed component
    Problem p = dense_problem(n, k, d);
    for (size_t i = 0; i < 700; i++) {
        std::copy_n(p.rows.row(3), d, &p.rows.x[i * d]);
    }
    check_dense(p);
    collapse(p, 77, 3);
    check_dense(p);
    // rows far out: their densities need difference form
    for (const float factor : {5.f, 30.f}) {
        p = dense_problem(n, k, d);
        collapse(p, 20, 60);
        for (size_t i = 0; i < n; i += 100) {
            for (size_t j = 0; j < d; j++) {
                p.rows.x[i * d + j] *= factor;
            }
        }
        check_dense(p, factor * 4);
    }
    // so far that single precision cannot tell one component from another
    for (size_t i = 0; i < n; i += 100) {
        for (size_t j = 0; j < d; j++) {
            p.rows.x[i * d + j] *= 1e5f;
        }
    }
    const Statistics found = accumulate(*cuda_engine(), p, Pass::soft);
    double count = 0;
    for (size_t c = 0; c < k; c++) {
        count += found.counts[c];
        CHECK(std::isfinite(found.energy[c]));
    }
    CHECK(std::abs(count - n) <= 1e-5 * n);
    // a component that is never chosen, and one that nearly always is
    p = dense_problem(n, k, d);
    p.model.weights[5] = 0;
    check_dense(p);
    p.model.weights.assign(k, 1e-6f);
    p.model.weights[17] = 1;
    check_dense(p);
    // weights: not for products
    p = dense_problem(n, k, d);
    p.weights = random_weights(n, 33);
    collapse(p, 20, 61);
    check_dense(p);
}

TEST_CASE("cuda: dense rows of diagonal covariances", "[cuda]") {
    if (no_device()) {
        return;
    }
    struct Shape {
        size_t n, k, d;
        float offset;
    };
    for (const Shape& s :
         {Shape{2500, 300, 100, 0},
          Shape{1024, 127, 64, 0},
          Shape{1500, 129, 129, 3},
          Shape{1100, 700, 5, -50},
          Shape{1200, 65, 96, 0},
          Shape{1300, 257, 128, 0.5f},
          Shape{9000, 70, 8, 2}}) {
        if (small_shapes() && s.n * s.k > 150000) {
            continue;
        }
        Problem p = as_diagonal(
                dense_problem(s.n, s.k, s.d, s.offset), 301, false, 1.5);
        check_dense(p, 1 + std::abs(s.offset));
        // whole components, and single dimensions of others
        collapse(p, 3, 70);
        collapse(p, s.k - 1, 0);
        for (size_t c = 10; c < 20; c++) {
            const size_t j = c % s.d;
            p.model.variances[c * s.d + j] *= std::pow(10.f, 9.f - c);
        }
        check_dense(p, 1 + std::abs(s.offset));
    }
}

TEST_CASE("cuda: dense rows streamed equal resident", "[cuda]") {
    if (no_device() || small_shapes()) {
        return;
    }
    Problem p = dense_problem(300000, 70, 20);
    collapse(p, 3, 100);
    collapse(p, 69, 200000);
    for (size_t i = 0; i < p.n(); i += 5000) {
        p.rows.x[i * p.d()] += 1000; // far out
    }
    check_repeats(p, 10, size_t(130) << 20);
    check_repeats(as_diagonal(p, 302, false, 1.5), 5, size_t(150) << 20);
}
