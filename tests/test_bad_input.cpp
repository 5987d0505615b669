// Bad input to indexes and the mixture quantizer: an exception that names
// the argument and its bound, and nothing changed.

#include <tests/index_util.h>

#include <limits>

#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/check_input.h>

using namespace faiss_flash;
using namespace test;

namespace {

const size_t d = 4, nlist = 6, nb = 300;
const float quiet_nan = std::numeric_limits<float>::quiet_NaN();
const float inf = std::numeric_limits<float>::infinity();

/// x with one bad value in row 17, column 2
std::vector<float> with(std::vector<float> x, float value) {
    x[17 * d + 2] = value;
    return x;
}

} // namespace

TEST_CASE("search and add before train") {
    faiss::IndexFlatL2 quantizer(d);
    const std::vector<float> x = clustered(nb, d, 1);
    for (Codec codec : {Codec::flat, Codec::pq, Codec::sq8}) {
        Flash flash = make_flash(codec, &quantizer, nlist);
        REQUIRE_FALSE(flash->is_trained);
        const std::vector<std::string> parts = {"not trained", "train()"};
        check_throws([&] { flash->add(nb, x.data()); }, parts);
        check_throws([&] { search(*flash.ivf, x, 3); }, parts);
        faiss::RangeSearchResult result(1);
        check_throws(
                [&] { flash->range_search(1, x.data(), 1, &result); }, parts);
        std::vector<float> dist(3), recons(3 * d);
        std::vector<idx_t> labels(3);
        check_throws(
                [&] {
                    flash->search_and_reconstruct(
                            1,
                            x.data(),
                            3,
                            dist.data(),
                            labels.data(),
                            recons.data());
                },
                parts);
        const idx_t list = 0;
        const float coarse = 0;
        check_throws(
                [&] {
                    flash->search_preassigned(
                            1,
                            x.data(),
                            3,
                            &list,
                            &coarse,
                            dist.data(),
                            labels.data(),
                            false);
                },
                parts);
        CHECK(flash->ntotal == 0);
    }
}

TEST_CASE("train refuses bad vectors") {
    const std::vector<float> x = clustered(nb, d, 2);
    for (Trainer trainer : {Trainer::kmeans, Trainer::gmm}) {
        faiss::IndexFlatL2 quantizer(d);
        IndexIVFFlatFlash index(&quantizer, d, nlist);
        index.trainer = trainer;
        for (float value : {quiet_nan, inf, -inf}) {
            check_throws(
                    [&] { index.train(nb, with(x, value).data()); },
                    {"train", "x[17][2]", "finite"});
        }
        check_throws([&] { index.train(0, x.data()); }, {"n = 0"});
        check_throws([&] { index.train(-1, x.data()); }, {"n = -1"});
        check_throws([&] { index.train(nb, nullptr); }, {"null"});
        check_throws([&] { index.train(nlist - 1, x.data()); }, {"n = 5", "6"});
        index.policy = AssignmentPolicy::top_m(7);
        check_throws([&] { index.train(nb, x.data()); }, {"max_lists = 7"});
        CHECK_FALSE(index.is_trained);
        CHECK(quantizer.ntotal == 0);
        CHECK(index.variances.empty());
    }
}

// FAISS's constructor leaks when it throws: not for the leak checker.
TEST_CASE(
        "dimensions that do not fit are seen when the index is made",
        "[slow]") {
    faiss::IndexFlatL2 quantizer(d + 1);
    CHECK_THROWS_AS(
            IndexIVFFlatFlash(&quantizer, d, nlist), faiss::FaissException);
}

TEST_CASE("add and search refuse bad vectors and policies") {
    const std::vector<float> x = clustered(nb, d, 3);
    auto quantizer = first_rows_quantizer(d, nlist, x);
    Flash flash = make_flash(Codec::sq8, quantizer.get(), nlist);
    flash.options->policy = AssignmentPolicy::top_m(2);
    flash->train(nb, x.data());
    flash->add(nb, x.data());
    const ListContents before(*flash.ivf);

    for (float value : {quiet_nan, inf, -inf}) {
        const std::vector<float> bad = with(x, value);
        check_throws(
                [&] { flash->add(nb, bad.data()); },
                {"add", "x[17][2]", "finite"});
        check_throws(
                [&] { search(*flash.ivf, bad, 3); },
                {"search", "x[17][2]", "finite"});
        faiss::RangeSearchResult result(nb);
        check_throws(
                [&] { flash->range_search(nb, bad.data(), 1, &result); },
                {"search", "x[17][2]"});
    }
    check_throws([&] { flash->add(-3, x.data()); }, {"n = -3"});
    check_throws([&] { flash->add(1, nullptr); }, {"null"});
    CHECK_THROWS_AS(search(*flash.ivf, x, 0), faiss::FaissException);
    faiss::SearchParameters other;
    CHECK_THROWS_AS(search(*flash.ivf, x, 3, &other), faiss::FaissException);
    faiss::SearchParametersIVF params;
    params.nprobe = 0;
    CHECK_THROWS_AS(search(*flash.ivf, x, 3, &params), faiss::FaissException);

    flash.options->policy = AssignmentPolicy::air(-1);
    check_throws([&] { flash->add(1, x.data()); }, {"lambda = -1"});
    flash.options->policy = AssignmentPolicy::top_m(7);
    check_throws([&] { flash->add(1, x.data()); }, {"max_lists = 7", "6"});
    flash.options->policy = AssignmentPolicy::responsibility(1.5);
    check_throws([&] { flash->add(1, x.data()); }, {"tau = 1.5"});
    flash.options->policy = AssignmentPolicy::responsibility();
    check_throws(
            [&] { flash->add(1, x.data()); }, {"responsibility", "variances"});
    flash.options->policy = AssignmentPolicy::air();
    flash.options->engine = "abacus";
    if (!std::getenv("FAISS_FLASH_ENGINE")) {
        check_throws([&] { flash->add(1, x.data()); }, {"abacus", "cpu"});
    }
    flash.options->engine = "auto";

    // nothing to do is no error
    flash->add(0, nullptr);
    search(*flash.ivf, {}, 3);
    CHECK(ListContents(*flash.ivf) == before);
    CHECK(flash->ntotal == (idx_t)nb);
}

TEST_CASE("preassigned searches check their lists") {
    const std::vector<float> x = clustered(nb, d, 4);
    auto quantizer = first_rows_quantizer(d, nlist, x);
    Flash flash = make_flash(Codec::flat, quantizer.get(), nlist);
    flash->train(nb, x.data());
    flash->add(nb, x.data());
    std::vector<float> dist(3);
    std::vector<idx_t> labels(3);
    const float coarse = 0;
    auto run = [&](idx_t list, bool pairs, faiss::SearchParametersIVF* p) {
        flash->search_preassigned(
                1,
                x.data(),
                3,
                &list,
                &coarse,
                dist.data(),
                labels.data(),
                pairs,
                p);
    };
    check_throws([&] { run(nlist, false, nullptr); }, {"assign[0] = 6", "6"});
    run(-1, false, nullptr);
    CHECK(labels[0] == -1);
    // FAISS refuses the two together, or follows a null pointer
    faiss::IDSelectorRange sorted(0, 10, true);
    faiss::SearchParametersIVF params;
    params.sel = &sorted;
    run(0, true, &params);
    for (idx_t pair : labels) {
        CHECK((pair < 0 || flash->invlists->get_single_id(0, pair) < 10));
    }
    params.nprobe = 0;
    check_throws([&] { run(0, false, &params); }, {"nprobe = 0"});
}

TEST_CASE("metrics other than L2 and inner product are refused") {
    const std::vector<float> x = clustered(nb, d, 5);
    faiss::IndexFlat quantizer(d, faiss::METRIC_L1);
    quantizer.add(nlist, x.data());
    IndexIVFFlatFlash index(&quantizer, d, nlist, faiss::METRIC_L1);
    check_throws([&] { index.train(nb, x.data()); }, {"metric_type = 2"});
    index.is_trained = true;
    check_throws([&] { index.add(nb, x.data()); }, {"metric_type = 2"});
    check_throws([&] { search(index, x, 2); }, {"metric_type = 2"});
    check_throws(
            [] { MixtureQuantizer(4, 2, faiss::METRIC_Linf); },
            {"metric", "METRIC_L2"});
}

TEST_CASE("all vectors equal", "[sanitize]") {
    const std::vector<float> x(nb * d, 2.5f);
    for (Trainer trainer : {Trainer::kmeans, Trainer::gmm}) {
        for (const AssignmentPolicy& policy :
             {AssignmentPolicy::nearest(),
              AssignmentPolicy::top_m(3),
              AssignmentPolicy::responsibility(),
              AssignmentPolicy::closure(0.2, 3),
              AssignmentPolicy::air(),
              AssignmentPolicy::soar()}) {
            faiss::IndexFlatL2 quantizer(d);
            IndexIVFFlatFlash index(&quantizer, d, nlist);
            index.trainer = trainer;
            index.policy = policy;
            index.train(nb, x.data());
            index.add(nb, x.data());
            index.nprobe = nlist;
            const Results found = search(
                    index, std::vector<float>(x.begin(), x.begin() + d), nb);
            CHECK(count_duplicates(found.labels, nb) == 0);
            CHECK(std::count(found.labels.begin(), found.labels.end(), -1) ==
                  0);
            CHECK(found.distances[0] == 0);
        }
    }
}

TEST_CASE("the mixture quantizer checks its input") {
    const std::vector<float> x = clustered(nb, d, 6);
    MixtureQuantizer quantizer(d, 3);
    for (float value : {quiet_nan, inf}) {
        CHECK_THROWS_AS(
                quantizer.train(nb, with(x, value).data()),
                faiss::FaissException);
    }
    CHECK_THROWS_AS(quantizer.train(2, x.data()), faiss::FaissException);
    MixtureQuantizer empty(d, 0);
    CHECK_THROWS_AS(empty.train(nb, x.data()), faiss::FaissException);
    CHECK(quantizer.ntotal == 0);

    quantizer.add(3, x.data());
    const std::vector<float> third = {0.3f, 0.3f, 0.4f};
    check_throws(
            [&] {
                quantizer.set_mixture({1, 2}, third);
            },
            {"2 variances", "ntotal = 3"});
    check_throws(
            [&] {
                quantizer.set_mixture(std::vector<float>(3 * d - 1, 1), third);
            },
            {"variances", "ntotal = 3"});
    check_throws(
            [&] { quantizer.set_mixture(std::vector<float>(3 * d, 0), third); },
            {"variances[0] = 0"});
    check_throws(
            [&] {
                quantizer.set_mixture({1, 0, 1}, third);
            },
            {"variances[1] = 0"});
    check_throws(
            [&] {
                quantizer.set_mixture({1, quiet_nan, 1}, third);
            },
            {"variances[1]", "finite"});
    check_throws(
            [&] {
                quantizer.set_mixture({1, 1, 1}, {0.5f, -0.5f, 1});
            },
            {"mixing_weights[1] = -0.5"});
    check_throws(
            [&] {
                quantizer.set_mixture({1, 1, 1}, {0.5f, 0.5f, 1});
            },
            {"sum to 2"});
    CHECK_FALSE(quantizer.is_mixture());
    quantizer.set_mixture(std::vector<float>(3 * d, 1), third);
    CHECK(quantizer.is_mixture());
    CHECK(quantizer.model().is_diagonal());
    quantizer.set_mixture({1, 1, 1}, third);
    idx_t labels[4];
    float r[4];
    check_throws(
            [&] { quantizer.responsibilities(1, x.data(), 4, labels, r); },
            {"m = 4", "ntotal = 3"});
    check_throws(
            [&] { quantizer.responsibilities(1, x.data(), 0, labels, r); },
            {"m = 0", "at least 1"});
    check_throws(
            [&] {
                quantizer.responsibilities(
                        nb, with(x, inf).data(), 1, labels, r);
            },
            {"x[17][2]"});
}

TEST_CASE("the first value that is not finite is named", "[sanitize]") {
    // several blocks, several threads, every place in a block
    std::vector<float> x(200000, 1e38f);
    check_finite("test", 20000, 10, x.data());
    for (size_t at : {0, 1, 15, 16, 65535, 65536, 131071, 199999}) {
        std::vector<float> bad = x;
        bad[at] = quiet_nan;
        bad.back() = inf;
        check_throws(
                [&] { check_finite("test", 20000, 10, bad.data()); },
                {"x[" + std::to_string(at / 10) + "][" +
                 std::to_string(at % 10) + "]"});
    }
}
