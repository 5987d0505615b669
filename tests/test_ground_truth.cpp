// The exact ground truth against a brute force in double precision.

#include <datasets/dataset.h>
#include <datasets/ground_truth.h>
#include <datasets/ground_truth_file.h>
#include <datasets/progress.h>
#include <datasets/whole_file.h>
#include <tests/catch_compat.h>
#include <tests/datasets_util.h>

#include <algorithm>
#include <cmath>

using namespace faiss_flash;
using namespace test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// All distances of a query, in double, sorted; ties by id.
std::vector<std::pair<double, int64_t>> brute_force(
        const std::vector<float>& base,
        const float* query,
        size_t d,
        DatasetMetric metric) {
    const size_t n = base.size() / d;
    std::vector<std::pair<double, int64_t>> all(n);
    for (size_t i = 0; i < n; i++) {
        double l2 = 0, dot = 0, xx = 0, yy = 0;
        for (size_t j = 0; j < d; j++) {
            const double x = base[i * d + j], y = query[j];
            l2 += (x - y) * (x - y);
            dot += x * y;
            xx += x * x;
            yy += y * y;
        }
        const double cosine = xx > 0 ? dot / std::sqrt(xx * yy) : 0;
        all[i] = {
                metric == DatasetMetric::L2 ? l2 : 1 - cosine,
                static_cast<int64_t>(i)};
    }
    std::sort(all.begin(), all.end());
    return all;
}

/// Several block sizes and k against the brute force: same ids, same order.
void check_exact(
        const std::vector<float>& base,
        const std::vector<float>& queries,
        size_t d,
        DatasetMetric metric,
        const std::vector<size_t>& ks) {
    const TempDir dir;
    const size_t n = base.size() / d, nq = queries.size() / d;
    write_bytes(dir / "x.fbin", bin_bytes(base, uint32_t(d)));
    const VectorFile file = open_vectors(dir / "x.fbin");
    std::vector<std::vector<std::pair<double, int64_t>>> expected;
    for (size_t q = 0; q < nq; q++) {
        expected.push_back(
                brute_force(base, queries.data() + q * d, d, metric));
    }
    for (size_t k : ks) {
        for (size_t block : {size_t(1), size_t(37), n / 2 + 1, 2 * n}) {
            CAPTURE(k, block);
            GroundTruthOptions options;
            options.block_rows = block;
            size_t last = 0;
            options.progress = [&](size_t rows) { last = rows; };
            const GroundTruth truth = exact_ground_truth(
                    file, nq, queries.data(), k, metric, options);
            REQUIRE(truth.nq == nq);
            REQUIRE(truth.k == k);
            CHECK(last == n);
            size_t wrong = 0;
            double off = 0;
            for (size_t q = 0; q < nq; q++) {
                for (size_t j = 0; j < k; j++) {
                    const auto& want = expected[q][j];
                    wrong += truth.ids[q * k + j] != want.second;
                    const double error =
                            std::abs(truth.dist[q * k + j] - want.first);
                    off = std::max(off, error / (1 + want.first));
                }
            }
            CHECK(wrong == 0);
            CHECK(off < 1e-12);
        }
    }
}

std::vector<float> small_integers(size_t n, int range, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<float> x(n);
    for (float& value : x) {
        value = float(int(random() % range));
    }
    return x;
}

} // namespace

TEST_CASE("ground truth is a brute force in double", "[ground_truth]") {
    for (size_t d : {1, 3, 32, 100}) {
        CAPTURE(d);
        const auto base = random_values<float>(200 * d, 1);
        const auto queries = random_values<float>(30 * d, 2);
        for (auto metric : {DatasetMetric::L2, DatasetMetric::Angular}) {
            // Cosines in one dimension are +-1: rounding decides ties there.
            if (d > 1 || metric == DatasetMetric::L2) {
                check_exact(base, queries, d, metric, {1, 10, 200});
            }
        }
    }
}

TEST_CASE("equal distances come by lowest id", "[ground_truth][sanitize]") {
    // Few distinct values: nearly all distances are ties, more than the
    // candidates that the search in float returns.
    for (size_t d : {1, 2, 4}) {
        const auto base = small_integers(800 * d, 3, 3);
        const auto queries = small_integers(25 * d, 3, 4);
        check_exact(base, queries, d, DatasetMetric::L2, {1, 20, 100});
    }
    const std::vector<float> same(300 * 8, 2.0f);
    check_exact(
            same, std::vector<float>(8, 1.0f), 8, DatasetMetric::L2, {1, 100});
}

TEST_CASE("float rounding cannot hide a neighbour", "[ground_truth]") {
    // Far from the origin the search in float, which subtracts inner
    // products from norms, sees nothing but rounding errors.
    const size_t d = 16;
    auto base = random_values<float>(600 * d, 5);
    auto queries = random_values<float>(25 * d, 6);
    for (auto* x : {&base, &queries}) {
        for (float& value : *x) {
            value += 30000;
        }
    }
    check_exact(base, queries, d, DatasetMetric::L2, {1, 10});

    // Squares that overflow a float: the search in float sees infinities.
    auto huge = random_values<float>(300 * d, 7);
    for (size_t i = 0; i < huge.size(); i++) {
        huge[i] *= (i / d) % 2 ? 1e25f : 1.0f;
    }
    const auto near = random_values<float>(22 * d, 8);
    check_exact(huge, near, d, DatasetMetric::L2, {1, 10, 200});
}

TEST_CASE("a zero base vector is at angular distance one", "[ground_truth]") {
    const size_t d = 6;
    auto base = random_values<float>(200 * d, 9);
    std::fill_n(base.begin() + 17 * d, d, 0.0f);
    const auto queries = random_values<float>(22 * d, 10);
    check_exact(base, queries, d, DatasetMetric::Angular, {5, 200});
}

TEST_CASE("ground truth refuses bad input", "[ground_truth]") {
    const TempDir dir;
    const size_t d = 4;
    auto base = random_values<float>(20 * d, 1);
    const auto queries = random_values<float>(2 * d, 2);
    const auto error = [&](size_t nq,
                           const std::vector<float>& q,
                           size_t k,
                           DatasetMetric metric = DatasetMetric::L2,
                           size_t block = 8) {
        write_bytes(dir / "x.fbin", bin_bytes(base, d));
        GroundTruthOptions options;
        options.block_rows = block;
        return error_of([&] {
            exact_ground_truth(
                    open_vectors(dir / "x.fbin"),
                    nq,
                    q.data(),
                    k,
                    metric,
                    options);
        });
    };
    CHECK_THAT(error(2, queries, 0), ContainsSubstring("k is 0, must be"));
    CHECK_THAT(
            error(2, queries, 21),
            ContainsSubstring("k is 21, must be between 1 and the 20 rows"));
    CHECK_THAT(error(0, queries, 1), ContainsSubstring("nq is 0"));
    CHECK_THAT(
            error(2, queries, 1, DatasetMetric::L2, 0),
            ContainsSubstring("block_rows is 0"));
    auto bad = queries;
    bad[5] = NAN;
    CHECK_THAT(
            error(2, bad, 1),
            ContainsSubstring("queries: row 1 holds a NaN or an infinity"));
    bad.assign(2 * d, 0.0f);
    CHECK_THAT(
            error(2, bad, 1, DatasetMetric::Angular),
            ContainsSubstring("queries: row 0 is all zeros"));
    base[13 * d + 1] = INFINITY;
    CHECK_THAT(
            error(2, queries, 1),
            ContainsSubstring("x.fbin: row 13 holds a NaN or an infinity"));
}

TEST_CASE("ground truth files come back", "[ground_truth]") {
    const TempDir dir;
    const auto base = random_values<uint8_t>(50 * 6, 1);
    const auto queries = random_values<uint8_t>(5 * 6, 2);
    write_bytes(dir / "x_base.u8bin", bin_bytes(base, 6));
    write_bytes(dir / "x_query.bvecs", vecs_bytes(queries, 6));
    const VectorFile b = open_vectors(dir / "x_base.u8bin");
    const VectorFile q = open_vectors(dir / "x_query.bvecs");
    const std::vector<float> xq(queries.begin(), queries.end());

    for (auto metric : {DatasetMetric::L2, DatasetMetric::Angular}) {
        const GroundTruth truth =
                exact_ground_truth(b, 5, xq.data(), 7, metric);
        for (const char* name : {"gt.ivecs", "gt.ibin"}) {
            write_id_file(dir / name, truth);
            const IdFile ids = open_ids(dir / name);
            REQUIRE(ids.n() == 5);
            REQUIRE(ids.k() == 7);
            std::vector<int64_t> read(35);
            ids.read(0, 5, 50, read.data());
            CHECK(read == truth.ids);
        }
        write_hdf5_dataset(dir / "set.hdf5", b, q, truth, metric);
        const Dataset set = open_dataset(dir / "set.hdf5");
        CHECK(set.metric == metric);
        CHECK(set.base.element() == ElementType::uint8);
        CHECK(set.ground_truth == truth.ids);
        std::vector<float> rows(50 * 6), dist(5 * 7);
        open_vectors(dir / "set.hdf5").read(0, 50, rows.data());
        CHECK(std::equal(rows.begin(), rows.end(), base.begin()));
        open_vectors(dir / "set.hdf5", "test").read(0, 5, rows.data());
        CHECK(std::equal(xq.begin(), xq.end(), rows.begin()));
        open_vectors(dir / "set.hdf5", "distances").read(0, 5, dist.data());
        for (size_t i = 0; i < dist.size(); i++) {
            const double want = metric == DatasetMetric::L2
                    ? std::sqrt(truth.dist[i])
                    : truth.dist[i];
            CHECK(std::abs(dist[i] - want) <= 1e-6 * want);
        }
    }
    // Nothing but the files asked for.
    CHECK(dir.count() == 5);
}

TEST_CASE("files are written whole or not at all", "[ground_truth]") {
    const TempDir dir;
    const std::string path = dir / "x.ivecs";
    write_bytes(path, "old");
    {
        WholeFile file(path);
        file.write("new", 3);
        CHECK(read_bytes(path) == "old");
    }
    CHECK(read_bytes(path) == "old");
    CHECK(dir.count() == 1);
    {
        WholeFile file(path);
        file.write("new", 3);
        file.commit();
    }
    CHECK(read_bytes(path) == "new");
    CHECK(dir.count() == 1);
    CHECK_THAT(
            error_of([&] { WholeFile file(dir / "none/x"); }),
            ContainsSubstring("none/x: cannot write: No such file"));

    GroundTruth truth;
    truth.nq = truth.k = 1;
    truth.ids = {int64_t(1) << 31};
    CHECK_THAT(
            error_of([&] { write_id_file(path, truth); }),
            ContainsSubstring("id 2147483648 does not fit"));
    CHECK_THAT(
            error_of([&] { write_id_file(dir / "x.fbin", truth); }),
            ContainsSubstring("unknown extension"));
    CHECK(read_bytes(path) == "new");

    // A base that cannot be read to its end leaves the old file alone.
    write_bytes(dir / "x.fvecs", [] {
        auto bytes = vecs_bytes(random_values<float>(6, 1), 2);
        bytes[2 * 12] = 3;
        return bytes;
    }());
    const VectorFile broken = open_vectors(dir / "x.fvecs");
    truth.ids = {0};
    truth.dist = {0};
    write_bytes(dir / "set.hdf5", "old");
    CHECK_THAT(
            error_of([&] {
                write_hdf5_dataset(
                        dir / "set.hdf5",
                        broken,
                        broken,
                        truth,
                        DatasetMetric::L2);
            }),
            ContainsSubstring("row 2 has dimension 3"));
    CHECK(read_bytes(dir / "set.hdf5") == "old");
    CHECK(dir.count() == 3);
}

TEST_CASE("progress lines", "[progress]") {
    CHECK(readable_seconds(-1) == "0 s");
    CHECK(readable_seconds(11.2) == "12 s");
    CHECK(readable_seconds(200) == "3 min 20 s");
    CHECK(readable_seconds(7500) == "2 h 05 min");
    CHECK(readable_seconds(NAN) == "0 s");
    CHECK(readable_seconds(INFINITY) == "99 h 59 min");
    CHECK(progress_line("x", 0, 4, 1) ==
          "x [------------------------] 0 %, time left unknown");
    CHECK(progress_line("x", 1, 4, 10) ==
          "x [######------------------] 25 %, 30 s left");
    CHECK(progress_line("x", 4, 4, 10) ==
          "x [########################] 100 %, 10 s");
    CHECK(progress_line("x", 5, 4, 10) == progress_line("x", 4, 4, 10));
    CHECK(progress_line("x", 0, 0, 0) ==
          "x [########################] 100 %, 0 s");

    // Short work prints nothing, on a terminal or not.
    for (bool terminal : {false, true}) {
        std::FILE* out = std::tmpfile();
        REQUIRE(out != nullptr);
        {
            ProgressBar bar("x", 100, out, terminal);
            for (int i = 0; i < 100; i++) {
                bar.add(1);
            }
        }
        CHECK(std::ftell(out) == 0);
        std::fclose(out);
    }
}
