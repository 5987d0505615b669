// What FlashClustering prints, how it is interrupted, and what it refuses.

#include <faiss/impl/AuxIndexStructures.h>

#include <functional>

#include <tests/clustering_util.h>

using namespace test;
using faiss_flash::FlashClustering;

TEST_CASE("nothing is printed unless verbose is set, but FAISS's warning") {
    const Rows rows = normal_rows(400, 4, 111);
    const auto run = [&](int descriptor, bool stock, auto adjust) {
        faiss::ClusteringParameters cp = parameters(3);
        adjust(cp);
        return captured(descriptor, [&] {
            faiss::IndexFlatL2 index(4);
            if (stock) {
                faiss::Clustering clustering(4, 20, cp);
                clustering.train(rows.n, rows.x.data(), index);
            } else {
                FlashClustering clustering(4, 20, cp);
                clustering.train(rows.n, rows.x.data(), index);
            }
        });
    };
    const auto quiet = [](faiss::ClusteringParameters&) {};
    CHECK(run(1, false, quiet).empty());
    CHECK(run(2, false, quiet).empty());

    const auto warning = [](faiss::ClusteringParameters& cp) {
        cp.min_points_per_centroid = 39;
    };
    CHECK(run(1, false, warning).empty());
    CHECK_FALSE(run(2, false, warning).empty());
    CHECK(run(2, false, warning) == run(2, true, warning));
    const auto enough = [](faiss::ClusteringParameters& cp) {
        cp.min_points_per_centroid = 20;
    };
    CHECK(run(2, false, enough).empty());
    const auto sampled = [](faiss::ClusteringParameters& cp) {
        cp.min_points_per_centroid = 39;
        cp.max_points_per_centroid = 10;
    };
    CHECK(run(2, false, sampled) == run(2, true, sampled));

    const auto verbose = [](faiss::ClusteringParameters& cp) {
        cp.verbose = true;
        cp.max_points_per_centroid = 10;
    };
    const std::string text = run(1, false, verbose);
    using Catch::Matchers::ContainsSubstring;
    CHECK_THAT(
            text,
            ContainsSubstring("Sampling a subset of 200 / 400 for training"));
    CHECK_THAT(text, ContainsSubstring("Clustering 200 points in 4D to 20"));
    CHECK_THAT(text, ContainsSubstring("redo 1 times, 3 iterations"));
    for (const char* line : {"Iteration 0 (", "Iteration 2 ("}) {
        CHECK_THAT(text, ContainsSubstring(line));
        CHECK_THAT(run(1, true, verbose), ContainsSubstring(line));
    }
    CHECK(run(2, false, verbose).empty());
}

namespace {

struct Interrupted : std::exception {};

/// Asks for an interruption at the third look.
struct ThirdLook : faiss::InterruptCallback {
    int looks = 0;
    bool want_interrupt() override {
        return ++looks >= 3;
    }
};

} // namespace

TEST_CASE("FAISS's interruption stops training and changes nothing") {
    const Rows rows = normal_rows(400, 4, 121);
    FlashClustering ours(4, 20, parameters(50));
    ours.centroids.assign(rows.x.begin(), rows.x.begin() + 8);
    const std::vector<float> given = ours.centroids;
    faiss::IndexFlatL2 index(4);
    index.add(3, rows.x.data());
    faiss::InterruptCallback::instance.reset(new ThirdLook());
    CHECK_THROWS_AS(
            ours.train(rows.n, rows.x.data(), index), faiss::FaissException);
    faiss::InterruptCallback::clear_instance();
    CHECK(ours.centroids == given);
    CHECK(ours.iteration_stats.empty());
    CHECK(index.ntotal == 3);
}

namespace {

/// Each way of calling train wrongly, and words its message must have.
struct Mistake {
    std::string name;
    std::function<void(FlashClustering&)> change;
    std::function<void(Training&, idx_t& n)> spoil;
    std::vector<std::string> words;
};

} // namespace

TEST_CASE("bad input throws, names itself and changes nothing") {
    const Rows rows = normal_rows(100, 4, 131);
    const auto none = [](FlashClustering&) {};
    const auto good = [](Training&, idx_t&) {};
    const std::vector<Mistake> mistakes = {
            {"NaN",
             none,
             [](Training& t, idx_t&) { t.rows.x[41] = NAN; },
             {"NaN", "x[10][1]"}},
            {"infinity",
             none,
             [](Training& t, idx_t&) { t.rows.x[399] = -INFINITY; },
             {"Inf", "x[99][3]"}},
            {"n < k",
             none,
             [](Training&, idx_t& n) { n = 9; },
             {"n = 9", "k = 10"}},
            {"n = 0",
             none,
             [](Training&, idx_t& n) { n = 0; },
             {"n = 0", "k = 10"}},
            {"n < 0",
             none,
             [](Training&, idx_t& n) { n = -3; },
             {"n = -3", "k = 10"}},
            {"k = 0",
             [](FlashClustering& c) { c.k = 0; },
             good,
             {"k = 0", "at least 1"}},
            {"k < 0",
             [](FlashClustering& c) { c.k = size_t(-2); },
             good,
             {"k = -2", "at least 1"}},
            {"d = 0",
             [](FlashClustering& c) { c.d = 0; },
             good,
             {"d = 0", "at least 1"}},
            {"d of the index",
             [](FlashClustering& c) { c.d = 5; },
             good,
             {"Index dimension 4", "5"}},
            {"no weight",
             none,
             [](Training& t, idx_t&) { t.weights.assign(100, 0); },
             {"weights", "0"}},
            {"negative weight",
             none,
             [](Training& t, idx_t&) {
                 t.weights.assign(100, 1);
                 t.weights[7] = -0.5f;
             },
             {"weights[7] = -0.5", "at least 0"}},
            {"weight that is not a number",
             none,
             [](Training& t, idx_t&) {
                 t.weights.assign(100, 1);
                 t.weights[8] = NAN;
             },
             {"weights[8] = ", "finite"}},
            {"infinite weight",
             none,
             [](Training& t, idx_t&) {
                 t.weights.assign(100, 1);
                 t.weights[9] = INFINITY;
             },
             {"weights[9] = inf", "finite"}},
            {"no weight in the sample",
             [](FlashClustering& c) { c.max_points_per_centroid = 2; },
             [](Training& t, idx_t&) {
                 // row 0 is not among the 20 sampled for this seed
                 t.weights.assign(100, 0);
                 t.weights[0] = 1;
             },
             {"weights of the 20 sampled", "0"}},
            {"niter",
             [](FlashClustering& c) { c.niter = -1; },
             good,
             {"niter = -1", "at least 0"}},
            {"nredo",
             [](FlashClustering& c) { c.nredo = 0; },
             good,
             {"nredo = 0", "at least 1"}},
            {"max_points_per_centroid",
             [](FlashClustering& c) { c.max_points_per_centroid = 0; },
             good,
             {"max_points_per_centroid = 0", "at least 1"}},
            {"decode_block_size",
             [](FlashClustering& c) { c.decode_block_size = 0; },
             good,
             {"decode_block_size = 0", "at least 1"}},
            {"engine",
             [](FlashClustering& c) { c.engine = "abacus"; },
             good,
             {"engine 'abacus'", "cpu"}},
            {"ragged centroids",
             none,
             [](Training& t, idx_t&) { t.given.resize(7); },
             {"centroids", "7", "4"}},
            {"too many centroids",
             none,
             [](Training& t, idx_t&) { t.given.resize(44); },
             {"centroids", "44", "40"}},
            {"centroids that are not numbers",
             none,
             [](Training& t, idx_t&) {
                 t.given.resize(8);
                 t.given[5] = NAN;
             },
             {"centroids", "[1][1]"}},
    };
    EnvironmentVariable unset("FAISS_FLASH_ENGINE", nullptr);
    for (const Mistake& mistake : mistakes) {
        INFO(mistake.name);
        Training t{rows, {}, {}, nullptr, {}};
        idx_t n = rows.n;
        mistake.spoil(t, n);
        FlashClustering ours(4, 10, parameters(3));
        ours.centroids = t.given;
        mistake.change(ours);
        faiss::IndexFlatL2 index(4);
        index.add(6, rows.x.data());
        const std::vector<float> held = vectors_of(index);
        const std::string message = message_of([&] {
            ours.train(n, t.rows.x.data(), index, t.weights_or_null());
        });
        INFO(message);
        for (const std::string& word : mistake.words) {
            CHECK(message.find(word) != std::string::npos);
        }
        CHECK((message.find("FlashClustering") != std::string::npos ||
               mistake.name == "engine" ||
               mistake.name == "centroids that are not numbers"));
        CHECK(same_bytes(ours.centroids, t.given));
        CHECK(ours.iteration_stats.empty());
        CHECK(ours.variances.empty());
        CHECK(vectors_of(index) == held);
    }
}

TEST_CASE("bad indexes and codecs throw") {
    const Rows rows = normal_rows(100, 4, 141);
    FlashClustering ours(4, 10, parameters(3));
    {
        faiss::IndexFlat index(4, faiss::METRIC_L1);
        const std::string message =
                message_of([&] { ours.train(100, rows.x.data(), index); });
        CHECK(message.find("metric_type = 2") != std::string::npos);
    }
    faiss::IndexFlatL2 index(4);
    {
        const std::string message =
                message_of([&] { ours.train(100, nullptr, index); });
        CHECK(message.find("x is a null pointer") != std::string::npos);
    }
    {
        faiss::IndexFlatL2 wrong(5);
        const std::string message = message_of([&] {
            ours.train_encoded(
                    100,
                    reinterpret_cast<const uint8_t*>(rows.x.data()),
                    &wrong,
                    index);
        });
        CHECK(message.find("Codec dimension 5") != std::string::npos);
        CHECK(message.find("data dimension 4") != std::string::npos);
    }
    CHECK(index.ntotal == 0);
    CHECK(ours.centroids.empty());
}

TEST_CASE("the check for NaNs can be switched off where FAISS can") {
    faiss::ClusteringParameters cp = parameters(1);
    const bool can = set_check_input_data_for_NaNs(cp, false, 0);
    Rows rows = normal_rows(100, 4, 151);
    rows.x[0] = NAN;
    FlashClustering ours(4, 3, cp);
    faiss::IndexFlatL2 index(4);
    const auto train = [&] { ours.train(100, rows.x.data(), index); };
    if (can) {
        CHECK_NOTHROW(train());
    } else {
        CHECK_THROWS_AS(train(), faiss::FaissException);
    }
}
