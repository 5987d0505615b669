// Properties of FlashClustering that need no stock FAISS beside it.

#include <tests/clustering_util.h>

#include <faiss_flash/engine/engine.h>

using namespace test;
using faiss_flash::FlashClustering;

TEST_CASE("the objective never rises without a split", "[per_engine]") {
    for (const bool real : {false, true}) {
        const Rows rows =
                real ? real_rows(2000) : blob_rows(2000, 12, 30, 4, 21);
        FlashClustering ours(rows.d, 25, parameters(30));
        faiss::IndexFlatL2 index(rows.d);
        ours.train(rows.n, rows.x.data(), index);
        const auto& stats = ours.iteration_stats;
        REQUIRE(stats.size() == 30);
        for (size_t i = 1; i < stats.size(); i++) {
            // centroids are rounded to single precision
            const bool fell = stats[i].obj <= stats[i - 1].obj * (1 + 1e-6);
            CHECK((fell || stats[i - 1].nsplit > 0));
        }
        CHECK(stats.back().obj < 0.9 * stats.front().obj);
    }
}

TEST_CASE(
        "centroids are the means of the vectors nearest to them",
        "[per_engine]") {
    // one more iteration, done here in double precision
    const Rows rows = real_rows(1500);
    const size_t d = rows.d, k = 20;
    const std::vector<float> weights = random_weights(rows.n, 31);
    const bool on_device =
            std::string(faiss_flash::get_engine().name()) == "cuda";
    for (const bool weighted : {false, true}) {
        Training t{rows, {}, {}, nullptr, {}};
        if (weighted) {
            t.weights = weights;
        }
        faiss::IndexFlatL2 index(d);
        FlashClustering before(d, k, parameters(4));
        train_on(before, t, index);
        FlashClustering after(d, k, parameters(5));
        train_on(after, t, index);

        std::vector<double> sums(k * d), counts(k);
        std::vector<int64_t> members(k);
        double energy = 0, objective = 0, total = 0, squares = 0;
        for (size_t i = 0; i < rows.n; i++) {
            double best = HUGE_VAL;
            size_t label = 0;
            for (size_t c = 0; c < k; c++) {
                double dist = 0;
                for (size_t j = 0; j < d; j++) {
                    const double diff =
                            rows.x[i * d + j] - before.centroids[c * d + j];
                    dist += diff * diff;
                }
                if (dist < best) {
                    best = dist;
                    label = c;
                }
            }
            const double w = weighted ? weights[i] : 1;
            for (size_t j = 0; j < d; j++) {
                sums[label * d + j] += w * rows.x[i * d + j];
            }
            counts[label] += w;
            members[label]++;
            energy += w * best;
            objective += best;
            total += w;
        }
        Worst centroid, share, variance;
        for (size_t c = 0; c < k; c++) {
            for (size_t j = c * d; j < (c + 1) * d; j++) {
                // 1/count and the product are rounded; on a device, so are
                // weighted sums of up to 128 rows
                const int bits = weighted && on_device ? -17 : -23;
                centroid.see(
                        std::abs(after.centroids[j] - sums[j] / counts[c]),
                        std::ldexp(sums[j] / counts[c], bits) + 1e-30,
                        c,
                        j);
            }
            share.see(
                    std::abs(after.mixing_weights[c] - counts[c] / total),
                    1e-6 * counts[c] / total,
                    c);
            variance.see(
                    relative_gap(after.variances[c], energy / (total * d)),
                    1e-6,
                    c);
            squares += double(members[c]) * members[c];
        }
        CHECK_WORST(centroid);
        CHECK_WORST(share);
        CHECK_WORST(variance);
        const auto& last = after.iteration_stats.back();
        CHECK(relative_gap(last.obj, objective) <= 1e-6);
        CHECK(relative_gap(
                      last.imbalance_factor,
                      squares * k / (double(rows.n) * rows.n)) <= 1e-12);
        CHECK(last.nsplit == 0);
    }
}

TEST_CASE(
        "training gives the same bytes with any number of threads",
        "[per_engine][sanitize]") {
    const Rows rows = blob_rows(700, 20, 12, 3, 41);
    faiss::ClusteringParameters cp = parameters(6);
    cp.max_points_per_centroid = 40;
    cp.nredo = 2;
    const auto run = [&](int threads) {
        Threads scope(threads);
        FlashClustering ours(20, 15, cp);
        faiss::IndexFlatL2 index(20);
        ours.train(rows.n, rows.x.data(), index);
        CHECK(omp_get_max_threads() == threads);
        return std::make_pair(ours.centroids, ours.iteration_stats.back().obj);
    };
    const auto one = run(1);
    for (const int threads : {2, 3, 7}) {
        const auto many = run(threads);
        CHECK(same_bytes(one.first, many.first));
        CHECK(one.second == many.second);
    }
}

TEST_CASE("the same seed gives the same bytes, another seed others") {
    const Rows rows = normal_rows(600, 8, 51);
    const auto run = [&](int seed) {
        faiss::ClusteringParameters cp = parameters(4);
        cp.seed = seed;
        FlashClustering ours(8, 10, cp);
        faiss::IndexFlatL2 index(8);
        ours.train(rows.n, rows.x.data(), index);
        return ours.centroids;
    };
    CHECK(same_bytes(run(7), run(7)));
    CHECK(!same_bytes(run(7), run(8)));
}

TEST_CASE("weights are vectors counted several times", "[per_engine]") {
    const Rows rows = blob_rows(300, 6, 8, 3, 61);
    Training weighted{rows, {}, {}, nullptr, {}}, repeated;
    repeated.rows.d = 6;
    for (size_t i = 0; i < rows.n; i++) {
        const int times = i % 4; // 0 as well
        weighted.weights.push_back(float(times));
        for (int t = 0; t < times; t++) {
            repeated.rows.x.insert(
                    repeated.rows.x.end(), rows.row(i), rows.row(i) + 6);
            repeated.rows.n++;
        }
    }
    weighted.given.assign(rows.x.begin() + 6, rows.x.begin() + 10 * 6);
    repeated.given = weighted.given;
    const faiss::ClusteringParameters cp = parameters(10);
    FlashClustering a(6, 9, cp), b(6, 9, cp);
    faiss::IndexFlatL2 index(6);
    train_on(a, weighted, index);
    train_on(b, repeated, index);
    Worst centroid;
    for (size_t j = 0; j < a.centroids.size(); j++) {
        centroid.see(std::abs(a.centroids[j] - b.centroids[j]), 1e-5, j);
    }
    CHECK_WORST(centroid);
}

TEST_CASE("training ends where stock FAISS would split for ever") {
    // no cluster's weight exceeds 1, so its random pick never stops
    const Rows rows = normal_rows(300, 5, 71);
    Training t{rows, {}, {}, nullptr, {}};
    t.given = far_centroids(rows, 12, 4).x;
    for (const float weight : {1e-3f, 1e-30f, 1e-42f}) {
        t.weights.assign(rows.n, weight);
        FlashClustering ours(5, 12, parameters(8));
        faiss::IndexFlatL2 index(5);
        train_on(ours, t, index);
        CHECK(ours.iteration_stats[0].nsplit == 4);
        CHECK(all_finite(ours.centroids));
        CHECK(all_finite(ours.variances));
        CHECK(all_finite(ours.mixing_weights));
        // the split ones have found vectors
        CHECK(ours.iteration_stats.back().nsplit == 0);
    }
    // a weight on one vector alone: the others' clusters are all empty
    t.weights.assign(rows.n, 0);
    t.weights[17] = 1e-3f;
    FlashClustering ours(5, 12, parameters(3));
    faiss::IndexFlatL2 index(5);
    train_on(ours, t, index);
    CHECK(all_finite(ours.centroids));
    CHECK(ours.iteration_stats[0].nsplit == 11);
}

TEST_CASE("vectors that are all equal can be clustered", "[per_engine]") {
    for (const float value : {0.0f, 3.0f, -1e15f}) {
        Rows rows{50, 4, std::vector<float>(200, value)};
        FlashClustering ours(4, 5, parameters(4));
        faiss::IndexFlatL2 index(4);
        ours.train(rows.n, rows.x.data(), index);
        CHECK(all_finite(ours.centroids));
        CHECK(all_finite(ours.variances));
        for (const float variance : ours.variances) {
            CHECK(variance > 0);
        }
        // split centroids are moved by a factor of 1 ± 1/1024, at most twice
        // each pass
        for (const float c : ours.centroids) {
            CHECK(std::abs(c - value) <= 0.02f * std::abs(value));
        }
    }
}

TEST_CASE(
        "as many vectors as centroids are copied as in stock FAISS",
        "[per_engine]") {
    Threads scope(1);
    const Rows rows = normal_rows(30, 128, 81, 20, 60);
    for (const int how : {0, 1, 2}) {
        Training t{rows, {}, {}, nullptr, {}};
        if (how > 0) {
            encode(t, how == 2);
        }
        faiss::Clustering stock(128, 30, parameters(5));
        FlashClustering ours(128, 30, parameters(5));
        faiss::IndexFlatL2 stock_index(128), index(128);
        train_on(stock, t, stock_index);
        train_on(ours, t, index);
        CHECK(same_bytes(ours.centroids, stock.centroids));
        CHECK(same_bytes(vectors_of(index), stock.centroids));
        REQUIRE(ours.iteration_stats.size() == 1);
        CHECK(ours.iteration_stats[0].obj == 0);
        CHECK(ours.iteration_stats[0].imbalance_factor == 1);
        CHECK(ours.variances.size() == 30);
        CHECK(ours.variances[0] > 0);
    }
}

TEST_CASE("one cluster is the mean", "[per_engine]") {
    const Rows rows = normal_rows(1000, 3, 91, 0.5, 1e4);
    FlashClustering ours(3, 1, parameters(2));
    faiss::IndexFlatL2 index(3);
    ours.train(257, rows.x.data(), index); // 256 are sampled
    CHECK(ours.iteration_stats.size() == 2);
    faiss::ClusteringParameters all = parameters(1);
    all.max_points_per_centroid = 1000;
    FlashClustering mean(3, 1, all);
    mean.train(rows.n, rows.x.data(), index);
    for (size_t j = 0; j < 3; j++) {
        double sum = 0;
        for (size_t i = 0; i < rows.n; i++) {
            sum += rows.x[i * 3 + j];
        }
        CHECK(relative_gap(mean.centroids[j], sum / rows.n) <=
              std::ldexp(1, -23));
    }
    CHECK(mean.mixing_weights == std::vector<float>{1});
}

TEST_CASE("the index receives the centroids", "[per_engine]") {
    const Rows rows = real_rows(1000);
    Training t{rows, {}, {}, nullptr, {}};
    const faiss::ClusteringParameters cp = parameters(5);
    faiss::IndexFlatL2 reference_index(128);
    FlashClustering reference(128, 16, cp);
    train_on(reference, t, reference_index);

    SECTION("in place of the vectors it held") {
        faiss::IndexFlatL2 index(128);
        index.add(77, rows.x.data());
        FlashClustering ours(128, 16, cp);
        train_on(ours, t, index);
        CHECK(index.ntotal == 16);
        CHECK(same_bytes(vectors_of(index), reference.centroids));
    }
    SECTION("and is trained with them if it needs training") {
        faiss::IndexScalarQuantizer index(128, faiss::ScalarQuantizer::QT_8bit);
        FlashClustering ours(128, 16, cp);
        train_on(ours, t, index);
        CHECK(index.is_trained);
        CHECK(index.ntotal == 16);
        CHECK(same_bytes(ours.centroids, reference.centroids));
        faiss::IndexScalarQuantizer expected(
                128, faiss::ScalarQuantizer::QT_8bit);
        expected.train(16, reference.centroids.data());
        CHECK(index.sq.trained == expected.sq.trained);
    }
    SECTION("and trained again with update_index only") {
        for (const bool update : {false, true}) {
            faiss::IndexScalarQuantizer index(
                    128, faiss::ScalarQuantizer::QT_8bit);
            index.train(500, rows.x.data());
            const auto before = index.sq.trained;
            faiss::ClusteringParameters again = cp;
            again.update_index = update;
            FlashClustering ours(128, 16, again);
            train_on(ours, t, index);
            CHECK((index.sq.trained == before) == !update);
            CHECK(index.ntotal == 16);
        }
    }
    SECTION("through a faiss::Clustering as well") {
        FlashClustering ours(128, 16, cp);
        faiss::Clustering& base = ours;
        faiss::IndexFlatL2 index(128);
        base.train(rows.n, rows.x.data(), index);
        CHECK(same_bytes(vectors_of(index), reference.centroids));
    }
}

TEST_CASE("the trained model holds what was trained") {
    const Rows rows = blob_rows(400, 6, 5, 4, 101);
    FlashClustering ours(6, 5, parameters(6));
    faiss::IndexFlatIP index(6);
    ours.train(rows.n, rows.x.data(), index);
    const faiss_flash::Model model = ours.model(faiss::METRIC_INNER_PRODUCT);
    CHECK(model.k == 5);
    CHECK(model.d == 6);
    CHECK(model.metric == faiss_flash::Metric::inner_product);
    CHECK(ours.model().metric == faiss_flash::Metric::l2);
    CHECK(model.means == ours.centroids);
    CHECK(model.variances == ours.variances);
    CHECK(model.weights == ours.mixing_weights);
    CHECK(model.is_mixture());
}
