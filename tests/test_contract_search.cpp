// Searches with copies: every parallel mode and thread count, heaps of the
// caller's, statistics.

#include <tests/contract_results.h>

#include <thread>

#include <omp.h>

#include <faiss/utils/Heap.h>

using namespace faiss_flash;
using namespace test;

namespace {

using Fixture = SearchFixture;
constexpr size_t d = Fixture::d, nlist = Fixture::nlist;
constexpr size_t nb = Fixture::nb, nq = Fixture::nq;

/// Puts the number of threads back.
struct Threads {
    int before = omp_get_max_threads();
    explicit Threads(int n) {
        omp_set_num_threads(n);
    }
    ~Threads() {
        omp_set_num_threads(before);
    }
};

} // namespace

TEST_CASE("contract: all parallel modes agree", "[sanitize]") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    Fixture f(codec, metric, AssignmentPolicy::top_m(3));
    f.add();
    const idx_t k = 12;
    const Results expected = search(*f.flash.ivf, f.xq, k);
    for (int nthread : {1, 2, 5}) {
        const Threads threads(nthread);
        for (int mode : {0, 1, 2, 3}) {
            f.flash->parallel_mode = mode;
            f.flash.counters->reset();
            const Results found = search(*f.flash.ivf, f.xq, k);
            CHECK(count_duplicates(found.labels, k) == 0);
            for (size_t i = 0; i < nq; i++) {
                CHECK(same_set(
                        &found.labels[i * k], &expected.labels[i * k], k));
            }
            CHECK(std::count(found.labels.begin(), found.labels.end(), -1) ==
                  0);
            CHECK(f.flash.counters->queries == nq);
            // one query, which modes 1 and 2 would split over threads
            const std::vector<float> one(f.xq.begin(), f.xq.begin() + d);
            const Results first = search(*f.flash.ivf, one, k);
            CHECK(same_set(first.labels.data(), expected.labels.data(), k));
        }
    }
    for (int mode : {7, -1}) {
        f.flash->parallel_mode = mode;
        const std::vector<std::string> parts = {
                "parallel_mode = " + std::to_string(mode), "set it to 0"};
        check_throws([&] { search(*f.flash.ivf, f.xq, 3); }, parts);
        faiss::RangeSearchResult result(1);
        check_throws(
                [&] { f.flash->range_search(1, f.xq.data(), 1, &result); },
                parts);
    }
}

TEST_CASE("contract: range search agrees in all its modes", "[sanitize]") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    Fixture f(codec, metric, AssignmentPolicy::top_m(3));
    f.add();
    const float radius = metric == faiss::METRIC_L2 ? 25.0f : 60.0f;
    faiss::RangeSearchResult first(nq);
    f.flash->range_search(nq, f.xq.data(), radius, &first);
    const AllInRange expected(first);
    CHECK(first.lims[nq] > 0);
    CHECK(expected.unique());
    for (int nthread : {1, 3}) {
        const Threads threads(nthread);
        for (int mode : {0, 1, 2}) {
            f.flash->parallel_mode = mode;
            faiss::RangeSearchResult result(nq);
            f.flash->range_search(nq, f.xq.data(), radius, &result);
            const AllInRange found(result);
            CHECK(found.unique());
            CHECK(found.ids == expected.ids);
        }
    }
}

TEST_CASE("contract: searches at the same time", "[sanitize]") {
    Fixture f(Codec::sq8, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    const idx_t k = 9;
    const Results expected = search(*f.flash.ivf, f.xq, k);
    f.flash->parallel_mode = GENERATE(0, 1);
    f.flash.counters->reset();
    const int ncaller = 4;
    std::vector<Results> found(ncaller);
    std::vector<std::thread> callers;
    for (int i = 0; i < ncaller; i++) {
        callers.emplace_back([&, i] {
            // the teams of several callers would be more than can run
            omp_set_num_threads(1);
            found[i] = search(*f.flash.ivf, f.xq, k);
        });
    }
    for (std::thread& caller : callers) {
        caller.join();
    }
    for (const Results& results : found) {
        CHECK(results.labels == expected.labels);
        CHECK(results.distances == expected.distances);
    }
    CHECK(f.flash.counters->queries == ncaller * nq);
}

TEST_CASE("contract: a range search for pairs") {
    const Codec codec = any_codec();
    Fixture f(codec, faiss::METRIC_L2, AssignmentPolicy::top_m(3));
    f.add();
    const size_t nprobe = f.flash->nprobe;
    std::vector<idx_t> keys(nq * nprobe);
    std::vector<float> dist(nq * nprobe);
    f.quantizer->search(nq, f.xq.data(), nprobe, dist.data(), keys.data());
    auto run = [&](bool pairs) {
        faiss::RangeSearchResult result(nq);
        f.flash->range_search_preassigned(
                nq, f.xq.data(), 25, keys.data(), dist.data(), &result, pairs);
        for (size_t i = 0; i < result.lims[nq] && pairs; i++) {
            const idx_t pair = result.labels[i];
            result.labels[i] = f.flash->invlists->get_single_id(
                    faiss::lo_listno(pair), faiss::lo_offset(pair));
        }
        return AllInRange(result);
    };
    const AllInRange ids = run(false), pairs = run(true);
    CHECK(pairs.unique());
    CHECK(pairs.ids == ids.ids);
}

TEST_CASE("contract: a heap that the caller fills in several calls") {
    const bool copies = GENERATE(false, true);
    const auto metric = any_metric();
    Fixture f(
            Codec::flat,
            metric,
            copies ? AssignmentPolicy::top_m(3) : AssignmentPolicy::nearest());
    f.add();
    const idx_t k = 10;
    const size_t nprobe = 8;
    f.flash->nprobe = nprobe;
    const Results expected = search(*f.flash.ivf, f.xq, k);
    std::vector<idx_t> keys(nq * nprobe);
    std::vector<float> dist(nq * nprobe);
    f.quantizer->search(nq, f.xq.data(), nprobe, dist.data(), keys.data());
    using Most = faiss::CMin<float, idx_t>;
    using Least = faiss::CMax<float, idx_t>;
    const bool similar = metric == faiss::METRIC_INNER_PRODUCT;
    const bool pairs = GENERATE(false, true);

    for (int mode : {0, 1, 2, 3}) {
        Results found{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
        for (size_t i = 0; i < nq; i++) {
            float* heap = &found.distances[i * k];
            idx_t* ids = &found.labels[i * k];
            similar ? faiss::heap_heapify<Most>(k, heap, ids)
                    : faiss::heap_heapify<Least>(k, heap, ids);
        }
        f.flash->parallel_mode = mode | f.flash->PARALLEL_MODE_NO_HEAP_INIT;
        // half of the lists, then the other half
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe / 2;
        for (size_t half : {0, 1}) {
            std::vector<idx_t> half_keys;
            std::vector<float> half_dist;
            for (size_t i = 0; i < nq; i++) {
                for (size_t j = 0; j < nprobe / 2; j++) {
                    const size_t at = i * nprobe + half * nprobe / 2 + j;
                    half_keys.push_back(keys[at]);
                    half_dist.push_back(dist[at]);
                }
            }
            f.flash->search_preassigned(
                    nq,
                    f.xq.data(),
                    k,
                    half_keys.data(),
                    half_dist.data(),
                    found.distances.data(),
                    found.labels.data(),
                    pairs,
                    &params);
        }
        for (size_t i = 0; i < nq; i++) {
            float* heap = &found.distances[i * k];
            idx_t* ids = &found.labels[i * k];
            for (idx_t j = 0; j < k && pairs; j++) {
                ids[j] = f.flash->invlists->get_single_id(
                        faiss::lo_listno(ids[j]), faiss::lo_offset(ids[j]));
            }
            similar ? faiss::heap_reorder<Most>(k, heap, ids)
                    : faiss::heap_reorder<Least>(k, heap, ids);
            for (idx_t j = 0; j < k; j++) {
                CHECK(about(heap[j], expected.distances[i * k + j], 1e-3));
            }
        }
        CHECK(count_duplicates(found.labels, k) == 0);
    }
}

TEST_CASE("contract: statistics count distances, once per vector") {
    const int mode = GENERATE(0, 1, 2, 3);
    Fixture f(Codec::sq8, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    f.flash->nprobe = nlist;
    f.flash->parallel_mode = mode;
    faiss::indexIVF_stats.reset();
    search(*f.flash.ivf, f.xq, 5);
    CHECK(faiss::indexIVF_stats.nq == nq);
    CHECK(faiss::indexIVF_stats.nlist == nq * nlist);
    CHECK(faiss::indexIVF_stats.ndis == nq * nb);
    CHECK(faiss::indexIVF_stats.nheap_updates > 0);
    CHECK(faiss::indexIVF_stats.search_time > 0);
    CHECK(f.flash.counters->distances == nq * nb);
    CHECK(f.flash.counters->entries == nq * 2 * nb);

    if (mode < 3) {
        faiss::indexIVF_stats.reset();
        faiss::RangeSearchResult result(nq);
        f.flash->range_search(nq, f.xq.data(), 10, &result);
        CHECK(faiss::indexIVF_stats.nq == nq);
        CHECK(faiss::indexIVF_stats.ndis == nq * nb);
        CHECK(f.flash.counters->queries == 2 * nq);
        CHECK(f.flash.counters->distances == 2 * nq * nb);
    }

    // the caller's own
    std::vector<idx_t> keys(nq * nlist);
    std::vector<float> dist(nq * nlist), found_dist(nq);
    std::vector<idx_t> labels(nq);
    f.quantizer->search(nq, f.xq.data(), nlist, dist.data(), keys.data());
    faiss::IndexIVFStats stats;
    f.flash->search_preassigned(
            nq,
            f.xq.data(),
            1,
            keys.data(),
            dist.data(),
            found_dist.data(),
            labels.data(),
            false,
            nullptr,
            &stats);
    CHECK(stats.ndis == nq * nb);
}

TEST_CASE("contract: a scanner made by hand") {
    const Codec codec = any_codec();
    Fixture f(codec, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    const faiss::IndexIVF& index = *f.flash.ivf;
    const idx_t k = 7;
    SlowSearch slow(index, *f.stock);
    {
#if FAISS_FLASH_FAISS_VERSION >= 11100
        std::unique_ptr<faiss::InvertedListScanner> scanner(
                index.get_InvertedListScanner(false, nullptr, nullptr));
#else
        std::unique_ptr<faiss::InvertedListScanner> scanner(
                index.get_InvertedListScanner(false, nullptr));
#endif
        using Least = faiss::CMax<float, idx_t>;
        for (size_t i = 0; i < nq; i++) {
            const auto found = slow.run(&f.xq[i * d], index.nprobe);
            const SlowSearch::Probes probes =
                    slow.probes(&f.xq[i * d], index.nprobe);
            std::vector<float> dist(k);
            std::vector<idx_t> ids(k);
            faiss::heap_heapify<Least>(k, dist.data(), ids.data());
            scanner->set_query(&f.xq[i * d]);
            for (size_t j = 0; j < index.nprobe; j++) {
                const idx_t list = probes.lists[j];
                scanner->set_list(list, probes.dist[j]);
                scanner->scan_codes(
                        index.invlists->list_size(list),
                        index.invlists->get_codes(list),
                        index.invlists->get_ids(list),
                        dist.data(),
                        ids.data(),
                        k);
            }
            faiss::heap_reorder<Least>(k, dist.data(), ids.data());
            CHECK(SlowSearch::agrees(found, ids.data(), dist.data(), k));
        }
    }
    // counted when the scanner goes
    CHECK(f.flash.counters->entries == slow.entries);
    CHECK(f.flash.counters->distances == slow.distances);
}
