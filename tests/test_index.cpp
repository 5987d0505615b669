// Searching indexes with and without copies: against stock FAISS, against
// brute force over the scanned lists, and counted.

#include <tests/slow_search.h>

using namespace faiss_flash;
using namespace test;

namespace {

using Fixture = SearchFixture;
constexpr size_t d = Fixture::d, nlist = Fixture::nlist;
constexpr size_t nb = Fixture::nb, nq = Fixture::nq;

std::vector<AssignmentPolicy> policies() {
    return {AssignmentPolicy::nearest(),
            AssignmentPolicy::top_m(3),
            AssignmentPolicy::responsibility(0.01, 3),
            AssignmentPolicy::closure(0.4, 4),
            AssignmentPolicy::air(),
            AssignmentPolicy::soar()};
}

} // namespace

TEST_CASE("policy nearest gives FAISS's lists and results") {
    Fixture f(any_codec(), any_metric(), AssignmentPolicy::nearest());
    // in parts of which FAISS treats small and large ones differently
    size_t i0 = 0;
    for (size_t n : {size_t(700), size_t(7), nb - 707}) {
        f.flash->add(n, f.xb.data() + i0 * d);
        f.stock->add(n, f.xb.data() + i0 * d);
        i0 += n;
    }
    CHECK_FALSE(*f.flash.has_copies);
    CHECK(f.flash.ncopies(*f.flash.ivf) == nb);
    CHECK(ListContents(*f.flash.ivf) == ListContents(*f.stock));
    for (int mode : {0, 1, 2, 3}) {
        f.flash->parallel_mode = f.stock->parallel_mode = mode;
        const Results ours = search(*f.flash.ivf, f.xq, 10);
        const Results theirs = search(*f.stock, f.xq, 10);
        CHECK(ours.labels == theirs.labels);
        CHECK(ours.distances == theirs.distances);
    }
    f.flash->parallel_mode = f.stock->parallel_mode = 0;
    faiss::RangeSearchResult ours(nq), theirs(nq);
    const float radius =
            f.flash->metric_type == faiss::METRIC_L2 ? 20.0f : 60.0f;
    f.flash->range_search(nq, f.xq.data(), radius, &ours);
    f.stock->range_search(nq, f.xq.data(), radius, &theirs);
    REQUIRE(ours.lims[nq] == theirs.lims[nq]);
    CHECK(ours.lims[nq] > 0);
    CHECK(std::equal(ours.labels, ours.labels + ours.lims[nq], theirs.labels));
}

TEST_CASE("k-means centroids shared with FAISS give its results") {
    // trained by us, copied into a stock index, which then trains its codes
    const Codec codec = any_codec();
    const auto metric = any_metric();
    const std::vector<float> xb = clustered(nb, d, 3);
    const std::vector<float> xq = clustered(nq, d, 4);
    faiss::IndexFlat quantizer(d, metric);
    Flash flash = make_flash(codec, &quantizer, nlist);
    flash.options->trainer = Trainer::kmeans;
    flash.options->policy = AssignmentPolicy::nearest();
    flash->train(nb, xb.data());
    flash->add(nb, xb.data());

    faiss::IndexFlat copy(d, metric);
    std::vector<float> centroids(nlist * d);
    quantizer.reconstruct_n(0, nlist, centroids.data());
    copy.add(nlist, centroids.data());
    auto stock = make_stock(codec, &copy, nlist);
    stock->train(nb, xb.data());
    stock->add(nb, xb.data());
    flash->nprobe = stock->nprobe = 4;
    const Results ours = search(*flash.ivf, xq, 7);
    const Results theirs = search(*stock, xq, 7);
    CHECK(ours.labels == theirs.labels);
    CHECK(ours.distances == theirs.distances);
}

TEST_CASE("results are brute force over the scanned lists", "[sanitize]") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    for (const AssignmentPolicy& policy : policies()) {
        Fixture f(codec, metric, policy);
        f.add();
        INFO(name(codec) << " " << to_string(policy.rule));
        CHECK(f.flash->ntotal == (idx_t)nb);
        CHECK(f.flash.ncopies(*f.flash.ivf) >= nb);
        CHECK(*f.flash.has_copies == (policy.rule != AssignmentRule::nearest));
        CHECK(*f.flash.has_copies == (f.flash.ncopies(*f.flash.ivf) > nb));
        for (int mode : {0, 3}) {
            f.flash->parallel_mode = mode;
            f.flash.counters->reset();
            const idx_t k = 10;
            const Results found = search(*f.flash.ivf, f.xq, k);
            SlowSearch slow(*f.flash.ivf, *f.stock);
            for (size_t i = 0; i < nq; i++) {
                CHECK(SlowSearch::agrees(
                        slow.run(&f.xq[i * d], f.flash->nprobe),
                        &found.labels[i * k],
                        &found.distances[i * k],
                        k));
            }
            CHECK(f.flash.counters->queries == nq);
            CHECK(f.flash.counters->entries == slow.entries);
            CHECK(f.flash.counters->distances == slow.distances);
        }
    }
}

TEST_CASE("all lists probed is an exact search") {
    // flat codes: whatever the policy, every vector is met exactly once
    for (const AssignmentPolicy& policy : policies()) {
        Fixture f(Codec::flat, faiss::METRIC_L2, policy);
        f.add();
        f.flash->nprobe = nlist;
        faiss::IndexFlatL2 exact(d);
        exact.add(nb, f.xb.data());
        const idx_t k = nb + 5; // more than there are
        const Results found = search(*f.flash.ivf, f.xq, k);
        const Results truth = search(exact, f.xq, k);
        CHECK(count_duplicates(found.labels, k) == 0);
        size_t wrong = 0;
        for (size_t i = 0; i < nq; i++) {
            for (idx_t j = 0; j < k; j++) {
                const size_t at = i * k + j;
                wrong += j < (idx_t)nb ? found.labels[at] < 0 ||
                                !about(found.distances[at],
                                       truth.distances[at],
                                       1e-3)
                                       : found.labels[at] != -1;
            }
        }
        CHECK(wrong == 0);
        CHECK(f.flash.counters->distances == nq * nb);
    }
}

TEST_CASE("search parameters: nprobe, selectors, max_codes", "[sanitize]") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    for (const AssignmentPolicy& policy :
         {AssignmentPolicy::nearest(), AssignmentPolicy::air(1, true)}) {
        Fixture f(codec, metric, policy);
        f.add();
        std::vector<idx_t> some;
        for (idx_t id = 0; id < (idx_t)nb; id += 3) {
            some.push_back(id);
        }
        const faiss::IDSelectorBatch batch(some.size(), some.data());
        const faiss::IDSelectorRange range(200, 700, false);
        const faiss::IDSelectorRange sorted(200, 700, true);
        std::vector<const faiss::IDSelector*> selectors = {
                nullptr, &batch, &range, &sorted};
        for (const faiss::IDSelector* sel : selectors) {
            for (size_t max_codes : {size_t(0), size_t(100), size_t(1000)}) {
                if (max_codes && sel == &sorted) {
                    continue; // FAISS counts the cut-out range
                }
                faiss::SearchParametersIVF params;
                params.nprobe = 9;
                params.max_codes = max_codes;
                params.sel = const_cast<faiss::IDSelector*>(sel);
                f.flash.counters->reset();
                const idx_t k = 8;
                const Results found = search(*f.flash.ivf, f.xq, k, &params);
                SlowSearch slow(*f.flash.ivf, *f.stock);
                for (size_t i = 0; i < nq; i++) {
                    CHECK(SlowSearch::agrees(
                            slow.run(
                                    &f.xq[i * d],
                                    params.nprobe,
                                    sel,
                                    max_codes),
                            &found.labels[i * k],
                            &found.distances[i * k],
                            k));
                }
                INFO(name(codec) << " max_codes " << max_codes);
                CHECK(f.flash.counters->distances == slow.distances);
                if (sel != &sorted) { // there, refused entries are not met
                    CHECK(f.flash.counters->entries == slow.entries);
                }
            }
        }
    }
}

TEST_CASE("range search returns no id twice", "[sanitize]") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    Fixture f(codec, metric, AssignmentPolicy::air(1, true));
    f.add();
    const float radius = metric == faiss::METRIC_L2 ? 25.0f : 60.0f;
    faiss::RangeSearchResult result(nq);
    f.flash->range_search(nq, f.xq.data(), radius, &result);
    SlowSearch slow(*f.flash.ivf, *f.stock);
    size_t total = 0;
    for (size_t i = 0; i < nq; i++) {
        std::set<idx_t> expected;
        for (auto& found : slow.run(&f.xq[i * d], f.flash->nprobe)) {
            // rounding may decide on the edge
            if (metric == faiss::METRIC_L2 ? found.first < radius * 0.9999f
                                           : found.first > radius * 1.0001f) {
                expected.insert(found.second);
            }
        }
        const std::set<idx_t> found(
                result.labels + result.lims[i],
                result.labels + result.lims[i + 1]);
        CHECK(found.size() == result.lims[i + 1] - result.lims[i]);
        CHECK(std::includes(
                found.begin(), found.end(), expected.begin(), expected.end()));
        CHECK(found.size() <= expected.size() + 1);
        total += expected.size();
    }
    CHECK(total > 0);
    CHECK(f.flash.counters->queries == nq);
    CHECK(f.flash.counters->entries == slow.entries);
    CHECK(f.flash.counters->distances == slow.distances);
}

TEST_CASE("store_pairs and reconstruction", "[sanitize]") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    for (const AssignmentPolicy& policy :
         {AssignmentPolicy::nearest(), AssignmentPolicy::top_m(3)}) {
        Fixture f(codec, metric, policy);
        f.add();
        const idx_t k = 6;
        const Results plain = search(*f.flash.ivf, f.xq, k);
        f.flash.counters->reset();
        Results found{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
        std::vector<float> recons(nq * k * d);
        f.flash->search_and_reconstruct(
                nq,
                f.xq.data(),
                k,
                found.distances.data(),
                found.labels.data(),
                recons.data());
        CHECK(count_duplicates(found.labels, k) == 0);
        CHECK(f.flash.counters->queries == nq);
        CHECK(f.flash.counters->distances > 0);
        for (size_t i = 0; i < nq * k; i++) {
            // distances are those to what is stored: the pair named the
            // right copy if it reconstructs to the distance
            const float* query = &f.xq[i / k * d];
            double dist = 0;
            for (size_t j = 0; j < d; j++) {
                const double diff = query[j] - recons[i * d + j];
                dist += metric == faiss::METRIC_L2
                        ? diff * diff
                        : (double)query[j] * recons[i * d + j];
            }
            CHECK(about(found.distances[i], dist, 1e-2));
            // up to ties and the rounding of coarse distances, which FAISS
            // computes in another way for few queries
            CHECK(about(found.distances[i], plain.distances[i], 1e-2));
            if (codec == Codec::flat) {
                CHECK(std::equal(
                        &recons[i * d],
                        &recons[i * d] + d,
                        &f.xb[found.labels[i] * d]));
            }
        }
    }
}
