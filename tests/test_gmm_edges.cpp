// Mixtures of awkward data, and everything around the fit.

#include <functional>

#include <tests/gmm_util.h>

using namespace test;

TEST_CASE("empty components are re-seeded", "[per_engine]") {
    const Rows rows = blob_rows(600, 4, 3, 6, 81);
    for (const int variant : {0, 1, 2, 3}) {
        const int warm_start = variant / 2 * 2;
        Fit fit = fit_of(rows, 8, warm_start, 60);
        if (variant % 2) {
            fit.gmm.covariance = Covariance::diag;
        }
        for (size_t c : {1, 4, 6}) { // far from everything
            std::fill_n(fit.t.given.begin() + c * 4, 4, 1e4f + c);
        }
        const GMMClustering ours = fit.run(8);
        check_sound(ours);
        check_never_falls(ours.em_stats, 4);
        if (warm_start == 0) {
            CHECK(ours.em_stats[0].nreseed >= 3);
        }
        CHECK(ours.em_stats.back().nreseed == 0);
        for (const float share : ours.mixing_weights) {
            CHECK(share >= fit.gmm.min_weight / 8);
        }
        for (const float value : ours.centroids) {
            CHECK(std::abs(value) < 100); // back among the vectors
        }
        // without re-seeding they stay away
        fit.gmm.min_weight = 0;
        const GMMClustering left = fit.run(8);
        check_sound(left);
        if (warm_start == 0) {
            CHECK(left.mixing_weights[1] == 0);
            CHECK(left.centroids[4] == 10001);
        }
        CHECK(ours.em_stats.back().log_likelihood >=
              left.em_stats.back().log_likelihood - 1e-3);
    }
}

TEST_CASE("frozen components are not re-seeded") {
    const Rows rows = blob_rows(300, 4, 3, 6, 85);
    Fit fit = fit_of(rows, 5, 0, 10);
    fit.t.given.resize(2 * 4);
    std::fill_n(fit.t.given.begin(), 4, 1e4f);
    fit.cp.frozen_centroids = true;
    const GMMClustering ours = fit.run(5);
    check_sound(ours);
    CHECK(std::equal(
            fit.t.given.begin(), fit.t.given.end(), ours.centroids.begin()));
}

TEST_CASE("mixtures of vectors that are all equal are sound", "[per_engine]") {
    for (const Covariance covariance : all_covariances) {
        for (const float value : {0.0f, -2.5f, 1e6f, 1e15f}) {
            INFO(to_string(covariance) << ", " << value);
            Fit fit;
            fit.t.rows = Rows{40, 3, std::vector<float>(120, value)};
            fit.gmm.covariance = covariance;
            const GMMClustering ours = fit.run(4);
            check_sound(ours);
            for (const float mean : ours.centroids) {
                CHECK(std::abs(mean - value) <=
                      0.02f * std::abs(value) + 1e-9f);
            }
        }
    }
}

TEST_CASE("vectors far from all others do no harm", "[per_engine]") {
    Rows rows = blob_rows(600, 6, 5, 2, 91);
    std::fill_n(rows.x.begin() + 300 * 6, 6, 1e6f);
    std::fill_n(rows.x.begin() + 301 * 6, 6, -1e6f);
    rows.x[302 * 6] = 1e15f;
    Fit fit = fit_of(rows, 6, 5, 30);
    fit.t.given.clear();
    for (const Covariance covariance : all_covariances) {
        INFO(to_string(covariance));
        fit.gmm.covariance = covariance;
        const GMMClustering ours = fit.run(6);
        check_sound(ours);
        check_never_falls(ours.em_stats, 6);
    }
}

TEST_CASE(
        "codes are trained on like the vectors they stand for",
        "[per_engine]") {
    const Rows rows = real_rows(700);
    faiss::IndexScalarQuantizer codec(128, faiss::ScalarQuantizer::QT_8bit);
    codec.train(rows.n, rows.x.data());
    Fit codes;
    codes.t.rows = rows;
    codes.t.codec = &codec;
    codes.t.codes.resize(rows.n * codec.sa_code_size());
    codec.sa_encode(rows.n, rows.x.data(), codes.t.codes.data());
    codes.cp.decode_block_size = 37;
    codes.cp.max_points_per_centroid = 60; // a sample of 600
    codes.t.weights = random_weights(rows.n, 121);
    codes.gmm.warm_start_niter = 3;
    codes.gmm.em_niter = 3;
    Fit decoded = codes;
    decoded.t.codec = nullptr;
    codec.sa_decode(rows.n, codes.t.codes.data(), decoded.t.rows.x.data());
    const GMMClustering a = codes.run(10), b = decoded.run(10);
    CHECK(same_bytes(a.centroids, b.centroids));
    CHECK(same_bytes(a.variances, b.variances));
    CHECK(same_bytes(a.mixing_weights, b.mixing_weights));
}

TEST_CASE(
        "mixtures have the same bytes with any number of threads",
        "[per_engine][sanitize]") {
    Fit fit;
    fit.t.rows = blob_rows(500, 9, 8, 2, 131);
    fit.cp.max_points_per_centroid = 40;
    fit.gmm.warm_start_niter = 3;
    fit.gmm.em_niter = 5;
    fit.gmm.covariance = GENERATE(Covariance::spherical, Covariance::diag);
    const auto run = [&](int threads) {
        Threads scope(threads);
        return fit.run(10);
    };
    const GMMClustering one = run(1);
    for (const int threads : {2, 3, 7}) {
        const GMMClustering many = run(threads);
        CHECK(same_bytes(one.centroids, many.centroids));
        CHECK(same_bytes(one.variances, many.variances));
        CHECK(same_bytes(one.mixing_weights, many.mixing_weights));
        CHECK(one.em_stats.back().log_likelihood ==
              many.em_stats.back().log_likelihood);
    }
}

TEST_CASE("as many vectors as components are copied") {
    Fit fit;
    fit.t.rows = normal_rows(12, 5, 141);
    const GMMClustering ours = fit.run(12);
    CHECK(same_bytes(ours.centroids, fit.t.rows.x));
    CHECK(ours.em_stats.empty());
    check_sound(ours);
    fit.gmm.covariance = Covariance::diag;
    check_sound(fit.run(12));
}

TEST_CASE("a mixture reports its passes only when verbose") {
    Fit fit;
    fit.t.rows = blob_rows(200, 3, 4, 3, 151);
    fit.gmm.em_niter = 3;
    CHECK(captured(1, [&] { fit.run(4); }).empty());
    CHECK(captured(2, [&] { fit.run(4); }).empty());
    fit.cp.verbose = true;
    const std::string text = captured(1, [&] { fit.run(4); });
    using Catch::Matchers::ContainsSubstring;
    CHECK_THAT(text, ContainsSubstring("EM pass 0"));
    CHECK_THAT(text, ContainsSubstring("log-likelihood="));
}

TEST_CASE("bad mixture parameters throw, name themselves and change nothing") {
    struct Mistake {
        std::function<void(GMMParameters&)> make;
        std::vector<std::string> words;
    };
    const std::vector<Mistake> mistakes = {
            {[](GMMParameters& g) { g.warm_start_niter = -1; },
             {"warm_start_niter = -1", "at least 0"}},
            {[](GMMParameters& g) { g.em_niter = 0; },
             {"em_niter = 0", "at least 1"}},
            {[](GMMParameters& g) { g.em_tolerance = -1e-9; },
             {"em_tolerance = -1e-09", "at least 0"}},
            {[](GMMParameters& g) { g.em_tolerance = NAN; },
             {"em_tolerance", "at least 0"}},
            {[](GMMParameters& g) { g.variance_floor = 0; },
             {"variance_floor = 0", "(0, 1]"}},
            {[](GMMParameters& g) { g.variance_floor = 1.5; },
             {"variance_floor = 1.5", "(0, 1]"}},
            {[](GMMParameters& g) { g.variance_floor = NAN; },
             {"variance_floor", "(0, 1]"}},
            {[](GMMParameters& g) { g.min_weight = -0.1; },
             {"min_weight = -0.1", "[0, 1)"}},
            {[](GMMParameters& g) { g.min_weight = 1; },
             {"min_weight = 1", "[0, 1)"}},
            {[](GMMParameters& g) { g.min_weight = NAN; },
             {"min_weight", "[0, 1)"}},
    };
    const Rows rows = normal_rows(100, 3, 161);
    for (const Mistake& mistake : mistakes) {
        GMMClustering ours(3, 5, parameters(0));
        mistake.make(ours.gmm);
        faiss::IndexFlatL2 index(3);
        index.add(2, rows.x.data());
        const std::string message =
                message_of([&] { ours.train(rows.n, rows.x.data(), index); });
        INFO(message);
        for (const std::string& word : mistake.words) {
            CHECK(message.find(word) != std::string::npos);
        }
        CHECK(index.ntotal == 2);
        CHECK(ours.centroids.empty());
        CHECK(ours.em_stats.empty());
    }
    // and what k-means refuses is refused in the mixture's name
    GMMClustering ours(3, 5, parameters(0));
    faiss::IndexFlatL2 index(3);
    std::vector<float> x = rows.x;
    x[4] = NAN;
    CHECK(message_of([&] {
              ours.train(100, x.data(), index);
          }).find("GMMClustering") != std::string::npos);
    CHECK(message_of([&] {
              ours.train(4, rows.x.data(), index);
          }).find("n = 4") != std::string::npos);
}
