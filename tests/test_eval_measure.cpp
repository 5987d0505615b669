// What the harness counts, against a slow count from the lists themselves.

#include <tests/catch_compat.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include <eval/measure.h>

using namespace faiss_flash;

namespace {

constexpr size_t d = 8, nlist = 12, k = 10;

/// Gaussian blobs, so that lists are uneven and copies meet.
std::vector<float> blobs(size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < d; j++) {
            x[i * d + j] = normal(random) + (i % 5 == j ? 4.0f : 0.0f);
        }
    }
    return x;
}

SearchTask make_task() {
    SearchTask task;
    task.n = 1500;
    task.d = d;
    task.nq = 20;
    task.base = blobs(task.n, 1);
    task.queries = blobs(task.nq, 2);
    task.true_k = k;
    faiss::IndexFlatL2 exact(d);
    exact.add(task.n, task.base.data());
    std::vector<float> dist(task.nq * k);
    std::vector<idx_t> ids(task.nq * k);
    exact.search(task.nq, task.queries.data(), k, dist.data(), ids.data());
    task.true_ids.assign(ids.begin(), ids.end());
    return task;
}

struct SlowCount {
    double raw = 0, unique = 0, reranked = 0;
};

/// Per query, from the lists: entries of the nprobe nearest lists, and
/// different ids among them.
SlowCount count_slowly(
        const BuiltIndex& built,
        const SearchTask& task,
        size_t nprobe,
        size_t candidates) {
    std::vector<float> dist(task.nq * nprobe);
    std::vector<idx_t> lists(task.nq * nprobe);
    built.quantizer->faiss::IndexFlat::search(
            task.nq, task.queries.data(), nprobe, dist.data(), lists.data());
    SlowCount count;
    for (size_t query = 0; query < task.nq; query++) {
        std::set<idx_t> met;
        for (size_t p = 0; p < nprobe; p++) {
            const idx_t list = lists[query * nprobe + p];
            const auto& invlists = *built.ivf->invlists;
            const size_t size = invlists.list_size(list);
            faiss::InvertedLists::ScopedIds ids(&invlists, list);
            met.insert(ids.get(), ids.get() + size);
            count.raw += size;
        }
        count.unique += met.size();
        count.reranked += std::min(met.size(), candidates);
    }
    count.raw /= task.nq;
    count.unique /= task.nq;
    count.reranked /= task.nq;
    return count;
}

} // namespace

TEST_CASE("counted distances are those of a slow count", "[eval]") {
    const SearchTask task = make_task();
    const auto method = parse_methods({GENERATE(
            "faiss",
            "kmeans+nearest",
            "kmeans+top_m",
            "gmm+responsibility",
            "gmm+air")})[0];
    const Codec codec = parse_codec(
            GENERATE("flat", "sq8", "pq4", "pq4+rerank3", "flat+rerank"), 10);
    CAPTURE(method.name(), codec.name);

    TrainingOptions options;
    options.nlist = nlist;
    options.em_niter = 5;
    TrainedQuantizer trained =
            train_quantizer(method, options, task.n, d, task.base.data());
    CHECK(trained.centroids.size() == nlist * d);
    BuiltIndex built = build_index(
            method,
            make_policy(method.rule, PolicyOptions()),
            codec,
            options,
            trained,
            task.n,
            d,
            task.base.data());
    const bool copies = method.rule != AssignmentRule::nearest;
    CHECK((built.copies > 1) == copies);
    CHECK(built.copies <= 2);

    for (size_t nprobe : {1, 4, 12}) {
        const size_t candidates = static_cast<size_t>(codec.rerank * k);
        const SlowCount slow = count_slowly(built, task, nprobe, candidates);
        const Measurement measured = measure(built, codec, task, k, nprobe);
        CAPTURE(nprobe);
        CHECK(measured.dco_raw == Catch::Approx(slow.raw + slow.reranked));
        CHECK(measured.dco_unique ==
              Catch::Approx(slow.unique + slow.reranked));
        CHECK(measured.dco_coarse == nlist);
        CHECK(measured.search_s > 0);
        CHECK(measured.recall > 0);
        CHECK(measured.recall <= 1);
        if (nprobe == nlist && codec.kind == Codec::Kind::flat) {
            CHECK(measured.recall == 1);
        }
        // Nothing is left over from one measurement in the next.
        CHECK(measure(built, codec, task, k, nprobe).dco_raw ==
              measured.dco_raw);
    }
}

TEST_CASE("bytes per vector count every copy and the raw vectors", "[eval]") {
    const SearchTask task = make_task();
    const Method method = parse_methods({"kmeans+top_m"})[0];
    TrainingOptions options;
    options.nlist = nlist;
    TrainedQuantizer trained =
            train_quantizer(method, options, task.n, d, task.base.data());
    const Codec pq = parse_codec("pq4", 10);
    const BuiltIndex built = build_index(
            method,
            make_policy(method.rule, PolicyOptions()),
            pq,
            options,
            trained,
            task.n,
            d,
            task.base.data());
    CHECK(built.copies == 2);
    CHECK(built.bytes_per_vector(pq) == 2 * (4 + 8));
    CHECK(built.bytes_per_vector(parse_codec("pq4+rerank", 10)) ==
          2 * (4 + 8) + 4 * d);
    // A second index takes over the product quantizer of the first.
    REQUIRE(trained.product_quantizers.count("pq4") == 1);
    const auto& kept = trained.product_quantizers["pq4"];
    CHECK(built.code_train_s == kept.seconds);
    const auto& pq_index = dynamic_cast<const faiss::IndexIVFPQ&>(*built.ivf);
    CHECK(pq_index.pq.centroids == kept.pq.centroids);
}

TEST_CASE("nearest with k-means measures as stock FAISS does", "[eval]") {
    const SearchTask task = make_task();
    const Codec codec = parse_codec("flat", 10);
    TrainingOptions options;
    options.nlist = nlist;
    const Method stock = parse_methods({"faiss"})[0];
    const Method ours = parse_methods({"kmeans+nearest"})[0];
    TrainedQuantizer trained =
            train_quantizer(stock, options, task.n, d, task.base.data());
    const AssignmentPolicy policy = make_policy(ours.rule, PolicyOptions());
    const auto build = [&](const Method& method) {
        return build_index(
                method,
                policy,
                codec,
                options,
                trained,
                task.n,
                d,
                task.base.data());
    };
    BuiltIndex a = build(stock), b = build(ours);
    const Measurement x = measure(a, codec, task, k, 3);
    const Measurement y = measure(b, codec, task, k, 3);
    CHECK(x.recall == y.recall);
    CHECK(x.dco_raw == y.dco_raw);
    CHECK(y.dco_unique == y.dco_raw);
    CHECK(x.dco_coarse == y.dco_coarse);
}
