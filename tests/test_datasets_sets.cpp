// Whole data sets: an HDF5 file, a folder, a prefix, and the bundled sample.

#include <datasets/dataset.h>
#include <datasets/vector_file.h>
#include <tests/catch_compat.h>
#include <tests/datasets_util.h>

#include <algorithm>
#include <cmath>

using namespace faiss_flash;
using namespace test;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::string sample =
        FAISS_FLASH_DATASETS_DIR "/wallsift-128-euclidean.hdf5";

std::string open_error(const std::string& path) {
    return error_of([&] { open_dataset(path); });
}

/// An ann-benchmarks file of 4 base vectors, 2 queries, 3 neighbours each,
/// from which a test leaves out or replaces parts.
struct Parts {
    std::vector<float> train{1, 2, 3, 4, 5, 6, 0, 0};
    std::vector<float> test{3, 4, 6, 8};
    size_t test_d = 2;
    std::vector<int32_t> neighbors{1, 0, 2, 2, 1, 0};
    size_t k = 3;
    std::string distance = "euclidean";
    size_t distance_length = 0;

    void write(const std::string& path) const {
        Hdf5Writer writer(path);
        if (!train.empty()) {
            writer.floats("train", 2, train);
        }
        if (!test.empty()) {
            writer.floats("test", test_d, test);
        }
        if (!neighbors.empty()) {
            writer.ints("neighbors", k, neighbors);
        }
        if (!distance.empty()) {
            writer.attribute("distance", distance, distance_length);
        }
    }
};

} // namespace

TEST_CASE("an ann-benchmarks file is a data set", "[datasets][sets]") {
    const TempDir dir;
    Parts parts;
    // Variable length; fixed, exact or padded.
    for (size_t length : {0, 9, 20}) {
        parts.distance_length = length;
        parts.write(dir / "some-set.hdf5");
        const Dataset set = open_dataset(dir / "some-set.hdf5");
        CHECK(set.name == "some-set");
        CHECK(set.metric == DatasetMetric::L2);
        CHECK(set.base.n() == 4);
        CHECK(set.base.d() == 2);
        CHECK_FALSE(set.base.is_normalized());
        CHECK(set.nq == 2);
        CHECK(set.queries == parts.test);
        CHECK(set.gtk == 3);
        CHECK(set.ground_truth == std::vector<int64_t>{1, 0, 2, 2, 1, 0});
    }
    parts.neighbors.clear();
    parts.write(dir / "x.hdf5");
    CHECK(open_dataset(dir / "x.hdf5").gtk == 0);
}

TEST_CASE("angular sets are read at length one", "[datasets][sets]") {
    const TempDir dir;
    Parts parts;
    parts.distance = "angular";
    parts.write(dir / "x.hdf5");
    const Dataset set = open_dataset(dir / "x.hdf5", DatasetMetric::L2);
    CHECK(set.metric == DatasetMetric::Angular);
    CHECK(set.queries == std::vector<float>{0.6f, 0.8f, 0.6f, 0.8f});
    std::vector<float> rows(8);
    set.base.read(0, 4, rows.data());
    CHECK(rows[2] == 0.6f);
    CHECK(rows[3] == 0.8f);
    // A base row of zeros stays what it is; a query of zeros has no answer.
    CHECK(rows[6] == 0);
    CHECK(rows[7] == 0);
    parts.test[2] = parts.test[3] = 0;
    parts.write(dir / "y.hdf5");
    CHECK_THAT(
            open_error(dir / "y.hdf5"),
            ContainsSubstring("y.hdf5:test: row 1 is all zeros"));
}

TEST_CASE(
        "ann-benchmarks files with wrong parts are refused",
        "[datasets][sets]") {
    const TempDir dir;
    const std::string path = dir / "x.hdf5";
    const auto error_with = [&](const Parts& parts) {
        parts.write(path);
        return open_error(path);
    };
    Parts parts;
    parts.train.clear();
    CHECK_THAT(error_with(parts), ContainsSubstring("has no dataset 'train'"));
    parts = Parts();
    parts.test.clear();
    CHECK_THAT(error_with(parts), ContainsSubstring("has no dataset 'test'"));
    parts = Parts();
    parts.distance.clear();
    CHECK_THAT(error_with(parts), ContainsSubstring("no attribute 'distance'"));
    parts = Parts();
    parts.distance = "jaccard";
    CHECK_THAT(
            error_with(parts),
            ContainsSubstring("'jaccard', must be euclidean or angular"));
    parts = Parts();
    parts.test_d = 4;
    CHECK_THAT(
            error_with(parts),
            ContainsSubstring("x.hdf5:test: dimension 4, but") &&
                    ContainsSubstring("x.hdf5:train has dimension 2"));
    parts = Parts();
    parts.k = 2;
    CHECK_THAT(
            error_with(parts),
            ContainsSubstring("ground truth of 3 queries, but") &&
                    ContainsSubstring("has 2"));
    for (int32_t id : {4, -1}) {
        parts = Parts();
        parts.neighbors[4] = id;
        CHECK_THAT(
                error_with(parts),
                ContainsSubstring(
                        "x.hdf5:neighbors: row 1, column 1 holds id " +
                        std::to_string(id) + ", must be between 0 and 3"));
    }
}

TEST_CASE("folders and prefixes are data sets", "[datasets][sets]") {
    const TempDir dir;
    const auto base = random_values<uint8_t>(10 * 4, 1);
    const auto query = random_values<float>(3 * 4, 2);
    const std::vector<int32_t> ids{1, 2, 9, 0, 5, 5};
    fs::create_directory(dir / "sift");
    write_bytes(dir / "sift/sift_base.bvecs", vecs_bytes(base, 4));
    write_bytes(dir / "sift/sift_learn.bvecs", "not looked at");
    write_bytes(dir / "sift/sift_query.fvecs", vecs_bytes(query, 4));
    write_bytes(dir / "sift/sift_groundtruth.ivecs", vecs_bytes(ids, 2));
    write_bytes(dir / "sift/README.txt", "base query groundtruth");
    const auto check = [&](const Dataset& set, const std::string& name) {
        CHECK(set.name == name);
        CHECK(set.metric == DatasetMetric::L2);
        CHECK(set.base.n() == 10);
        CHECK(set.nq == 3);
        CHECK(set.queries == query);
        CHECK(set.gtk == 2);
        CHECK(set.ground_truth == std::vector<int64_t>(ids.begin(), ids.end()));
    };
    check(open_dataset(dir / "sift"), "sift");
    check(open_dataset(dir / "sift/"), "sift");
    check(open_dataset(dir / "sift/sift"), "sift");
    CHECK(open_dataset(dir / "sift", DatasetMetric::Angular)
                  .base.is_normalized());

    // Names of billion-scale sets; a file being fetched is not looked at.
    fs::create_directory(dir / "deep10");
    write_bytes(dir / "deep10/base.10.u8bin", bin_bytes(base, 4));
    write_bytes(dir / "deep10/base.1B.fbin.part", "half");
    write_bytes(dir / "deep10/query.public.3.fbin", bin_bytes(query, 4));
    write_bytes(dir / "deep10/groundtruth.10.ibin", bin_bytes(ids, 2));
    check(open_dataset(dir / "deep10"), "deep10");

    // Two base files: which one is not for us to guess.
    write_bytes(dir / "deep10/base.5.u8bin", bin_bytes(base, 8));
    CHECK_THAT(
            open_error(dir / "deep10"),
            ContainsSubstring("two base files") &&
                    ContainsSubstring("base.10.u8bin") &&
                    ContainsSubstring("base.5.u8bin"));
    fs::remove(dir / "deep10/base.5.u8bin");
    fs::remove(dir / "deep10/groundtruth.10.ibin");
    CHECK(open_dataset(dir / "deep10").gtk == 0);
    fs::remove(dir / "deep10/query.public.3.fbin");
    CHECK_THAT(open_error(dir / "deep10"), ContainsSubstring("no query file"));

    CHECK_THAT(open_error(dir / "gist"), ContainsSubstring("no such data set"));
    CHECK_THAT(
            open_error(dir / "no/such/folder"),
            ContainsSubstring("no such data set"));
    CHECK_THAT(
            open_error(dir / "sift/sift_base.bvecs"),
            ContainsSubstring("must be an .hdf5 file, a folder or"));
}

TEST_CASE("metrics by name", "[datasets][sets]") {
    CHECK(parse_metric("l2") == DatasetMetric::L2);
    CHECK(parse_metric("euclidean") == DatasetMetric::L2);
    CHECK(parse_metric("angular") == DatasetMetric::Angular);
    CHECK(parse_metric("cosine") == DatasetMetric::Angular);
    CHECK_THAT(
            error_of([] { parse_metric("ip"); }),
            ContainsSubstring("'ip', must be l2 or angular"));
    CHECK(parse_metric(metric_name(DatasetMetric::Angular)) ==
          DatasetMetric::Angular);
}

TEST_CASE("the bundled sample is what it says", "[datasets][sets]") {
    const Dataset set = open_dataset(sample);
    CHECK(set.name == "wallsift-128-euclidean");
    CHECK(set.metric == DatasetMetric::L2);
    REQUIRE(set.base.n() == 50000);
    REQUIRE(set.base.d() == 128);
    CHECK(set.base.element() == ElementType::uint8);
    REQUIRE(set.nq == 1000);
    REQUIRE(set.gtk == 100);
    std::vector<float> base(50000 * 128);
    set.base.read(0, 50000, base.data());
    const std::vector<float> first(base.begin(), base.begin() + 8);
    CHECK(first == std::vector<float>{5, 51, 72, 69, 43, 19, 2, 1});

    // Stored neighbours and distances against all distances, which are
    // exact: integers below 2^24.
    const VectorFile distances = open_vectors(sample, "distances");
    for (size_t q : {0, 1, 499, 998, 999}) {
        CAPTURE(q);
        std::vector<std::pair<int, int64_t>> all(50000);
        for (int64_t i = 0; i < 50000; i++) {
            int dist = 0;
            for (size_t j = 0; j < 128; j++) {
                const int diff =
                        int(base[i * 128 + j]) - int(set.queries[q * 128 + j]);
                dist += diff * diff;
            }
            all[i] = {dist, i};
        }
        std::partial_sort(all.begin(), all.begin() + 100, all.end());
        std::vector<float> stored(100);
        distances.read(q, 1, stored.data());
        for (size_t j = 0; j < 100; j++) {
            CHECK(set.ground_truth[q * 100 + j] == all[j].second);
            CHECK(std::abs(stored[j] - std::sqrt(double(all[j].first))) < 1e-3);
        }
    }
}
