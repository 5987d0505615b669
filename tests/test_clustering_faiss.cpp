// FlashClustering beside stock faiss::Clustering on real vectors.

#include <functional>
#include <map>
#include <set>

#include <faiss_flash/engine/engine.h>
#include <tests/clustering_util.h>

using namespace test;
using faiss_flash::FlashClustering;

namespace {

constexpr size_t n_real = 6000;
constexpr int k_real = 30;

/// One setting that stock FAISS and ours are compared under.
struct Setting {
    faiss::ClusteringParameters cp = parameters(25);
    faiss::MetricType metric = faiss::METRIC_L2;
    Training training;
    /// of the objective, relative
    double tolerance = 1e-4;
};

/// Every setting by name; real vectors.
std::map<std::string, std::function<void(Setting&)>> settings() {
    std::map<std::string, std::function<void(Setting&)>> all;
    all["plain"] = [](Setting&) {};
    all["another seed"] = [](Setting& s) { s.cp.seed = 987654321; };
    all["spherical"] = [](Setting& s) { s.cp.spherical = true; };
    all["inner product, spherical"] = [](Setting& s) {
        s.metric = faiss::METRIC_INNER_PRODUCT;
        s.cp.spherical = true;
    };
    all["int_centroids"] = [](Setting& s) { s.cp.int_centroids = true; };
    all["int_centroids, spherical"] = [](Setting& s) {
        s.cp.int_centroids = s.cp.spherical = true;
        for (float& value : s.training.rows.x) {
            value -= 30;
        }
        s.training.given = {};
        s.cp.niter = 3;
    };
    all["all centroids given"] = [](Setting& s) {
        const auto& x = s.training.rows.x;
        s.training.given.assign(x.end() - k_real * 128, x.end());
    };
    all["some centroids given"] = [](Setting& s) {
        const auto& x = s.training.rows.x;
        s.training.given.assign(x.end() - 11 * 128, x.end());
    };
    all["some centroids given and frozen"] = [](Setting& s) {
        const auto& x = s.training.rows.x;
        s.training.given.assign(x.end() - 11 * 128, x.end());
        s.cp.frozen_centroids = true;
    };
    all["nredo, some centroids given"] = [](Setting& s) {
        const auto& x = s.training.rows.x;
        s.training.given.assign(x.end() - 11 * 128, x.end());
        s.cp.nredo = 2;
        s.cp.niter = 5;
    };
    all["nredo"] = [](Setting& s) { s.cp.nredo = 3; };
    all["nredo, inner product, spherical"] = [](Setting& s) {
        s.cp.nredo = 3;
        s.cp.niter = 8;
        s.metric = faiss::METRIC_INNER_PRODUCT;
        s.cp.spherical = true;
    };
    all["weights"] = [](Setting& s) {
        s.training.weights = random_weights(n_real, 7);
    };
    all["subsampling"] = [](Setting& s) { s.cp.max_points_per_centroid = 30; };
    all["subsampling, weights, nredo"] = [](Setting& s) {
        s.cp.max_points_per_centroid = 30;
        s.cp.nredo = 2;
        s.training.weights = random_weights(n_real, 8);
    };
    all["scalar quantizer codes"] = [](Setting& s) {
        encode(s.training, false);
        s.cp.decode_block_size = 777;
    };
    all["product quantizer codes, weights, subsampling"] = [](Setting& s) {
        encode(s.training, true);
        s.cp.decode_block_size = 101;
        s.cp.max_points_per_centroid = 40;
        s.training.weights = random_weights(n_real, 9);
    };
    // The halves of a split cluster are so close (1/1024) that FAISS's single
    // precision decides about a vector in a thousand, and what follows is not
    // quite the same; a short way from the origin to the clusters keeps them
    // few.
    all["clusters that run empty"] = [](Setting& s) {
        s.training.rows = blob_rows(n_real, 128, 12, 1.5, 13);
        s.tolerance = 1e-3;
        s.training.given = far_centroids(s.training.rows, k_real, 9).x;
    };
    all["clusters that run empty, others frozen"] = [](Setting& s) {
        s.training.rows = blob_rows(n_real, 128, 12, 1.5, 13);
        s.tolerance = 1e-3;
        // the frozen ones are among the far ones
        s.training.given = far_centroids(s.training.rows, k_real / 2, 5).x;
        s.cp.frozen_centroids = true;
    };
    all["clusters that run empty, weights"] = [](Setting& s) {
        s.training.rows = blob_rows(n_real, 128, 12, 1.5, 13);
        s.tolerance = 1e-3;
        s.training.given = far_centroids(s.training.rows, k_real, 9).x;
        s.training.weights = random_weights(n_real, 10);
    };
    all["faster subsampling"] = [](Setting& s) {
        set_use_faster_subsampling(s.cp, true, 0);
        s.cp.max_points_per_centroid = 30;
    };
    all["early stop"] = [](Setting& s) {
        set_early_stop_threshold(s.cp, 0.003, 0);
    };
    all["unchecked input"] = [](Setting& s) {
        set_check_input_data_for_NaNs(s.cp, false, 0);
    };
#if __has_include(<faiss/impl/ClusteringInitialization.h>)
    for (const bool some_given : {false, true}) {
        const std::string suffix = some_given ? ", some given" : "";
        for (const auto method :
             {faiss::ClusteringInitMethod::KMEANS_PLUS_PLUS,
              faiss::ClusteringInitMethod::AFK_MC2}) {
            const bool plus =
                    method == faiss::ClusteringInitMethod::KMEANS_PLUS_PLUS;
            all[(plus ? "k-means++" : "AFK-MC2") + suffix] = [=](Setting& s) {
                s.cp.init_method = method;
                s.cp.afkmc2_chain_length = 20;
                s.cp.nredo = 2;
                s.cp.niter = 6;
                if (some_given) {
                    s.training.given.assign(
                            s.training.rows.x.begin(),
                            s.training.rows.x.begin() + 5 * 128);
                } else {
                    encode(s.training, false);
                }
            };
        }
    }
#endif
    return all;
}

Setting make_setting(const std::function<void(Setting&)>& adjust) {
    Setting s;
    s.training.rows = real_rows(n_real);
    adjust(s);
    return s;
}

} // namespace

TEST_CASE(
        "the objective follows stock FAISS at every iteration",
        "[per_engine][slow]") {
    // one thread: BLAS and OpenMP would wait for each other's
    Threads scope(1);
    const bool slow =
            &faiss_flash::get_engine() == &faiss_flash::reference_engine();
    for (const auto& named : settings()) {
        INFO(named.first);
        Setting s = make_setting(named.second);
        s.cp.niter = std::min(s.cp.niter, slow ? 4 : 25);

        faiss::Clustering stock(128, k_real, s.cp);
        faiss::IndexFlat stock_index(128, s.metric);
        train_on(stock, s.training, stock_index);

        FlashClustering ours(128, k_real, s.cp);
        faiss::IndexFlat index(128, s.metric);
        train_on(ours, s.training, index);

        REQUIRE(ours.iteration_stats.size() == stock.iteration_stats.size());
        Worst objective, even;
        for (size_t i = 0; i < stock.iteration_stats.size(); i++) {
            const auto& a = stock.iteration_stats[i];
            const auto& b = ours.iteration_stats[i];
            objective.see(relative_gap(a.obj, b.obj), s.tolerance, i);
            // a vector on a border may go to the other side
            even.see(
                    relative_gap(a.imbalance_factor, b.imbalance_factor),
                    1e-2,
                    i);
            CHECK(a.nsplit == b.nsplit);
            CHECK(b.time >= 0);
            CHECK(b.time_search >= 0);
        }
        CHECK_WORST(objective);
        CHECK_WORST(even);
        CHECK(ours.centroids.size() == stock.centroids.size());
        CHECK(vectors_of(index) == ours.centroids);
    }
}

TEST_CASE("what the comparison with stock FAISS covers") {
    Threads scope(1);
    // settings that are meant to be special are
    const auto all = settings();
    const auto stats_of = [&](const char* name) {
        const Setting s = make_setting(all.at(name));
        FlashClustering ours(128, k_real, s.cp);
        faiss::IndexFlat index(128, s.metric);
        train_on(ours, s.training, index);
        return ours.iteration_stats;
    };
    CHECK(stats_of("clusters that run empty")[0].nsplit >= 9);
    CHECK(stats_of("clusters that run empty, others frozen").size() == 25);
    CHECK(stats_of("clusters that run empty, weights")[0].nsplit >= 9);
    CHECK(stats_of("nredo").size() % 25 == 0);
    faiss::ClusteringParameters cp;
    const bool stops = set_early_stop_threshold(cp, 0.003, 0);
    CHECK((stats_of("early stop").size() < 25) == stops);
}

TEST_CASE(
        "the initial centroids are stock FAISS's, byte by byte",
        "[per_engine]") {
    Threads scope(1);
    for (const auto& named : settings()) {
        INFO(named.first);
        Setting s = make_setting(named.second);
        s.cp.niter = 0;
        s.cp.nredo = 1;
        faiss::Clustering stock(128, k_real, s.cp);
        faiss::IndexFlat stock_index(128, s.metric);
        train_on(stock, s.training, stock_index);
        FlashClustering ours(128, k_real, s.cp);
        faiss::IndexFlat index(128, s.metric);
        train_on(ours, s.training, index);
        CHECK(same_bytes(ours.centroids, stock.centroids));
        CHECK(same_bytes(vectors_of(index), stock.centroids));
        CHECK(ours.iteration_stats.empty());
    }
}

TEST_CASE("the subsample is stock FAISS's, vector by vector") {
    // two vectors per centroid: any other vector would show
    const size_t d = 8;
    const Rows rows = normal_rows(5000, d, 11);
    for (const bool faster : {false, true}) {
        for (const int seed : {0, 1234, 2147483647, -5}) {
            faiss::ClusteringParameters cp = parameters(1);
            cp.seed = seed;
            cp.max_points_per_centroid = 2;
            const bool has_faster = set_use_faster_subsampling(cp, faster, 0);
            if (seed < 0 && has_faster) {
                continue; // a seed from the clock
            }
            INFO("seed " << seed << ", faster " << faster);
            faiss::Clustering stock(d, 100, cp);
            faiss::IndexFlatL2 stock_index(d);
            stock.train(rows.n, rows.x.data(), stock_index);
            FlashClustering ours(d, 100, cp);
            faiss::IndexFlatL2 index(d);
            ours.train(rows.n, rows.x.data(), index);
            CHECK(relative_gap(
                          stock.iteration_stats[0].obj,
                          ours.iteration_stats[0].obj) <= 1e-5);
            Worst centroid;
            for (size_t j = 0; j < 100 * d; j++) {
                centroid.see(
                        std::abs(stock.centroids[j] - ours.centroids[j]),
                        1e-5,
                        j / d,
                        j % d);
            }
            CHECK_WORST(centroid);
        }
    }
}

TEST_CASE("negative seeds give other centroids where FAISS says so") {
    faiss::ClusteringParameters cp = parameters(1);
    cp.seed = -1;
    const bool clock = set_use_faster_subsampling(cp, false, 0);
    const Rows rows = normal_rows(500, 4, 12);
    std::set<std::vector<float>> results;
    for (int i = 0; i < 4; i++) {
        FlashClustering ours(4, 10, cp);
        faiss::IndexFlatL2 index(4);
        ours.train(rows.n, rows.x.data(), index);
        results.insert(ours.centroids);
    }
    CHECK(results.size() == (clock ? 4 : 1));
}

TEST_CASE("inner product without spherical follows stock FAISS") {
    // the largest centroid attracts everything: many splits
    const Rows rows = real_rows(1000);
    const faiss::ClusteringParameters cp = parameters(3);
    faiss::Clustering stock(128, 8, cp);
    faiss::IndexFlatIP stock_index(128);
    stock.train(rows.n, rows.x.data(), stock_index);
    FlashClustering ours(128, 8, cp);
    faiss::IndexFlatIP index(128);
    ours.train(rows.n, rows.x.data(), index);
    for (size_t i = 0; i < 3; i++) {
        CHECK(relative_gap(
                      stock.iteration_stats[i].obj,
                      ours.iteration_stats[i].obj) <= 1e-4);
        CHECK(stock.iteration_stats[i].nsplit ==
              ours.iteration_stats[i].nsplit);
    }
}

TEST_CASE("a second training goes on from the first as in stock FAISS") {
    const Rows rows = real_rows(1000);
    const faiss::ClusteringParameters cp = parameters(2);
    faiss::Clustering stock(128, 8, cp);
    FlashClustering ours(128, 8, cp);
    faiss::IndexFlatL2 stock_index(128), index(128);
    for (int i = 0; i < 2; i++) {
        stock.train(rows.n, rows.x.data(), stock_index);
        ours.train(rows.n, rows.x.data(), index);
    }
    REQUIRE(stock.iteration_stats.size() == 4);
    REQUIRE(ours.iteration_stats.size() == 4);
    for (size_t i = 0; i < 4; i++) {
        CHECK(relative_gap(
                      stock.iteration_stats[i].obj,
                      ours.iteration_stats[i].obj) <= 1e-4);
    }
}
