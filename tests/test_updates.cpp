// What the training loop is made of: updates of clusters, and sources.

#include <faiss/IndexScalarQuantizer.h>
#include <faiss/utils/random.h>

#include <numeric>

#include <faiss_flash/trainer/random_rows.h>
#include <faiss_flash/trainer/source.h>
#include <faiss_flash/trainer/update.h>
#include <tests/core_util.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::Model;
using faiss_flash::VectorSource;

TEST_CASE("splits take half of a cluster and move the halves apart") {
    std::mt19937 random(91);
    for (int trial = 0; trial < 200; trial++) {
        const size_t k = 2 + random() % 20, d = 1 + random() % 5;
        const size_t frozen = random() % k;
        Model model;
        model.k = k;
        model.d = d;
        model.means = normal_rows(k, d, 92 + trial, 5, 3).x;
        std::vector<float> sizes(k);
        int empty = 0;
        double total = 0;
        for (size_t c = 0; c < k; c++) {
            sizes[c] = random() % 3 == 0 ? 0 : float(1 + random() % 50);
            if (trial % 5 == 0) {
                sizes[c] *= 0.001f; // FAISS would never end
            }
            empty += c >= frozen && sizes[c] == 0;
            total += c >= frozen ? sizes[c] : 0;
        }
        const Model before = model;
        const std::vector<float> sizes_before = sizes;
        const int nsplit =
                faiss_flash::split_empty_clusters(1000, frozen, sizes, model);
        CHECK(nsplit == empty);
        double total_after = 0;
        for (size_t c = 0; c < k; c++) {
            if (c < frozen) {
                CHECK(sizes[c] == sizes_before[c]);
                CHECK(std::equal(
                        model.means.begin() + c * d,
                        model.means.begin() + (c + 1) * d,
                        before.means.begin() + c * d));
                continue;
            }
            total_after += sizes[c];
            if (total > 0) {
                CHECK(sizes[c] > 0);
            }
            if (sizes_before[c] == 0 && total > 0) {
                // somebody else's place, a thousandth or so away each time
                double nearest = HUGE_VAL;
                for (size_t other = frozen; other < k; other++) {
                    double worst = 0;
                    for (size_t j = 0; j < d; j++) {
                        worst = std::max(
                                worst,
                                relative_gap(
                                        model.means[c * d + j],
                                        before.means[other * d + j]));
                    }
                    nearest = std::min(
                            nearest,
                            sizes_before[other] > 0 ? worst : HUGE_VAL);
                }
                CHECK(nearest <= (empty + 1) / 1000.0);
                CHECK(nearest > 0);
            }
        }
        CHECK(relative_gap(total_after, total) <= 1e-6);
    }
}

TEST_CASE("a split that would take FAISS hours ends") {
    // sizes just above 1 among a thousand million vectors
    Model model;
    model.k = 1000;
    model.d = 1;
    model.means = normal_rows(1000, 1, 95).x;
    std::vector<float> sizes(1000, 1.0000002f);
    std::fill_n(sizes.begin(), 100, 0.0f);
    const int nsplit =
            faiss_flash::split_empty_clusters(1000000000, 0, sizes, model);
    CHECK(nsplit == 100);
    CHECK(*std::min_element(sizes.begin(), sizes.end()) > 0);
}

namespace {

/// Rows of a source in ranges of `step`, with their weights (1 if none).
std::pair<std::vector<float>, std::vector<float>> read_all(
        const VectorSource& source,
        size_t step) {
    std::vector<float> x, w, x_buffer, w_buffer;
    for (size_t i0 = 0; i0 < source.n(); i0 += step) {
        const size_t count = std::min(step, source.n() - i0);
        const float* rows = source.rows(i0, count, x_buffer);
        x.insert(x.end(), rows, rows + count * source.d());
        const float* weights = source.weights(i0, count, w_buffer);
        for (size_t i = 0; i < count; i++) {
            w.push_back(weights ? weights[i] : 1);
        }
    }
    return {x, w};
}

} // namespace

TEST_CASE("sources give the same rows in ranges of any size", "[sanitize]") {
    const Rows rows = normal_rows(101, 7, 111);
    const std::vector<float> weights = random_weights(101, 112);
    faiss::IndexScalarQuantizer codec(7, faiss::ScalarQuantizer::QT_8bit);
    codec.train(rows.n, rows.x.data());
    std::vector<uint8_t> codes(rows.n * codec.sa_code_size());
    codec.sa_encode(rows.n, rows.x.data(), codes.data());
    std::vector<float> decoded(rows.x.size());
    codec.sa_decode(rows.n, codes.data(), decoded.data());
    std::vector<int64_t> chosen = {100, 0, 5, 5, 77, 3, 99, 0};

    for (const float* w : {(const float*)nullptr, weights.data()}) {
        const auto check = [&](const VectorSource& source,
                               const std::vector<float>& x,
                               const std::vector<int64_t>& numbers) {
            REQUIRE(source.n() == numbers.size());
            CHECK(source.d() == 7);
            std::vector<float> expected_x, expected_w;
            for (const int64_t i : numbers) {
                expected_x.insert(
                        expected_x.end(),
                        x.begin() + i * 7,
                        x.begin() + (i + 1) * 7);
                expected_w.push_back(w ? w[i] : 1);
            }
            for (const size_t step : {1, 2, 3, 10, 1000}) {
                const auto found = read_all(source, step);
                CHECK(same_bytes(found.first, expected_x));
                CHECK(same_bytes(found.second, expected_w));
            }
            std::vector<float> buffer;
            CHECK((source.weights(0, 1, buffer) == nullptr) == (w == nullptr));
        };
        std::vector<int64_t> every(rows.n);
        std::iota(every.begin(), every.end(), 0);
        const auto array = [&] {
            return array_source(rows.n, 7, rows.x.data(), w);
        };
        check(*array(), rows.x, every);
        check(*faiss_flash::subset_source(array(), chosen), rows.x, chosen);
        for (const size_t block : {1, 4, 100, 101, 5000}) {
            const auto coded = [&] {
                return faiss_flash::codec_source(
                        rows.n, codec, codes.data(), block, w);
            };
            check(*coded(), decoded, every);
            check(*faiss_flash::subset_source(coded(), chosen),
                  decoded,
                  chosen);
        }
    }
    // vectors in memory are not copied
    std::vector<float> buffer;
    CHECK(array_source(rows.n, 7, rows.x.data(), nullptr)->rows(3, 5, buffer) ==
          rows.row(3));
    CHECK(buffer.empty());
}

TEST_CASE("rows to start from are FAISS's") {
    for (const size_t n : {1, 2, 3, 100, 5001}) {
        std::vector<int> all(n);
        for (const int64_t seed : {0, 1, 1234, -5}) {
            faiss::rand_perm(all.data(), n, seed);
            for (const size_t count : {size_t(0), size_t(1), n / 2, n}) {
                CHECK(faiss_flash::first_of_permutation(n, count, seed) ==
                      std::vector<int64_t>(all.begin(), all.begin() + count));
            }
        }
    }
    CHECK_THROWS_WITH(
            faiss_flash::first_of_permutation(size_t(1) << 31, 10, 1),
            Catch::Matchers::ContainsSubstring("n = 2147483648"));
}
