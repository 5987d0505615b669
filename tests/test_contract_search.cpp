// Searches with copies: every parallel mode and thread count, heaps of the
// caller's, search parameters, statistics, what FAISS's helpers call.

#include <tests/contract_util.h>

#include <omp.h>

#include <faiss/IVFlib.h>
#include <faiss/utils/Heap.h>
#if FAISS_FLASH_HAS_SEARCH1
#include <faiss/impl/ResultHandler.h>
#endif

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

bool same_set(const idx_t* a, const idx_t* b, idx_t k) {
    return std::set<idx_t>(a, a + k) == std::set<idx_t>(b, b + k);
}

struct AllInRange {
    std::vector<std::set<idx_t>> ids;
    std::vector<size_t> counts;

    explicit AllInRange(const faiss::RangeSearchResult& result) {
        for (size_t i = 0; i < result.nq; i++) {
            ids.emplace_back(
                    result.labels + result.lims[i],
                    result.labels + result.lims[i + 1]);
            counts.push_back(result.lims[i + 1] - result.lims[i]);
        }
    }
    bool unique() const {
        for (size_t i = 0; i < ids.size(); i++) {
            if (ids[i].size() != counts[i]) {
                return false;
            }
        }
        return true;
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

TEST_CASE("contract: selectors and pairs together") {
    const bool copies = GENERATE(false, true);
    Fixture f(
            Codec::pq,
            faiss::METRIC_L2,
            copies ? AssignmentPolicy::top_m(2) : AssignmentPolicy::nearest());
    f.add();
    faiss::IDSelectorRange range(100, 700, GENERATE(false, true));
    faiss::SearchParametersIVF params;
    params.nprobe = 9;
    params.sel = &range;
    const idx_t k = 10;
    const Results expected = search(*f.flash.ivf, f.xq, k, &params);
    Results found{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
    std::vector<float> recons(nq * k * d);
    f.flash->search_and_reconstruct(
            nq,
            f.xq.data(),
            k,
            found.distances.data(),
            found.labels.data(),
            recons.data(),
            &params);
    for (size_t i = 0; i < nq; i++) {
        CHECK(same_set(&found.labels[i * k], &expected.labels[i * k], k));
    }
    for (idx_t label : found.labels) {
        CHECK((label >= 100 && label < 700));
    }
}

TEST_CASE("contract: max_codes holds in every mode") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    faiss::SearchParametersIVF params;
    params.nprobe = 10;
    params.max_codes = 150;
    const idx_t k = 20;
    const Results expected = search(*f.flash.ivf, f.xq, k, &params);
    for (int mode : {1, 2, 3}) {
        f.flash->parallel_mode = mode;
        CHECK(search(*f.flash.ivf, f.xq, k, &params).labels == expected.labels);
    }
    params.max_codes = 0;
    f.flash->parallel_mode = 0;
    CHECK(search(*f.flash.ivf, f.xq, k, &params).labels != expected.labels);
}

TEST_CASE("contract: searches of ivflib") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    const idx_t k = 6;
    const Results expected = search(*f.flash.ivf, f.xq, k);
    faiss::SearchParametersIVF params;
    params.nprobe = f.flash->nprobe;
    Results found{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
    faiss::ivflib::search_with_parameters(
            f.flash.ivf.get(),
            nq,
            f.xq.data(),
            k,
            found.distances.data(),
            found.labels.data(),
            &params);
    CHECK(found.labels == expected.labels);

    std::vector<idx_t> query_lists(nq), result_lists(nq * k);
    faiss::ivflib::search_and_return_centroids(
            f.flash.ivf.get(),
            nq,
            f.xq.data(),
            k,
            found.distances.data(),
            found.labels.data(),
            query_lists.data(),
            result_lists.data());
    CHECK(found.labels == expected.labels);

    faiss::RangeSearchResult ours(nq), theirs(nq);
    f.flash->range_search(nq, f.xq.data(), 25, &ours);
    faiss::ivflib::range_search_with_parameters(
            f.flash.ivf.get(), nq, f.xq.data(), 25, &theirs, &params);
    CHECK(AllInRange(ours).ids == AllInRange(theirs).ids);
    CHECK(AllInRange(theirs).unique());
}

TEST_CASE("contract: bad search parameters are refused") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    faiss::SearchParametersIVF params;
    params.nprobe = 0;
    faiss::RangeSearchResult result(nq);
    check_throws(
            [&] {
                f.flash->range_search(nq, f.xq.data(), 1, &result, &params);
            },
            {"nprobe = 0"});
    faiss::SearchParameters other;
    check_throws(
            [&] { f.flash->range_search(nq, f.xq.data(), 1, &result, &other); },
            {"SearchParametersIVF"});
    CHECK_THROWS_AS(search(*f.flash.ivf, f.xq, 0), faiss::FaissException);

    // selectors that throw, in several threads
    struct Broken : faiss::IDSelector {
        bool is_member(idx_t) const override {
            FAISS_THROW_MSG("the selector is broken");
        }
    } broken;
    params.nprobe = 3;
    params.sel = &broken;
    for (int mode : {0, 1, 2, 3}) {
        f.flash->parallel_mode = mode;
        check_throws(
                [&] { search(*f.flash.ivf, f.xq, 3, &params); }, {"broken"});
    }
    f.flash->parallel_mode = 0;
    check_throws(
            [&] {
                f.flash->range_search(nq, f.xq.data(), 1, &result, &params);
            },
            {"broken"});
    check_throws([&] { f.flash->remove_ids(broken); }, {"broken"});
    CHECK(f.flash->ntotal == (idx_t)nb);
}

#if FAISS_FLASH_HAS_SEARCH1
TEST_CASE("contract: search1, codes and newer parameters") {
    const Codec codec = any_codec();
    const auto metric = any_metric();
    Fixture f(codec, metric, AssignmentPolicy::top_m(2));
    f.add();
    const idx_t k = 8;
    using Most = faiss::CMin<float, idx_t>;
    using Least = faiss::CMax<float, idx_t>;
    const bool similar = metric == faiss::METRIC_INNER_PRODUCT;
    faiss::IDSelectorRange range(0, 900);
    faiss::SearchParametersIVF params;
    params.nprobe = 7;
    params.sel = &range;
    const Results expected = search(*f.flash.ivf, f.xq, k, &params);
    std::vector<float> dist(k);
    std::vector<idx_t> ids(k);
    auto run = [&](auto compare, size_t i) {
        using C = decltype(compare);
        faiss::heap_heapify<C>(k, dist.data(), ids.data());
        faiss::HeapResultHandler<C> handler(k, dist.data(), ids.data());
        f.flash->search1(&f.xq[i * d], handler, &params);
        faiss::heap_reorder<C>(k, dist.data(), ids.data());
    };
    for (size_t i = 0; i < nq; i++) {
        similar ? run(Most(), i) : run(Least(), i);
        CHECK(same_set(ids.data(), &expected.labels[i * k], k));
    }

    // codes of the copies that were found
    params.sel = nullptr;
    const size_t bytes = f.flash->code_size + f.flash->coarse_code_size();
    std::vector<uint8_t> codes(nq * k * bytes);
    std::vector<float> all_dist(nq * k), decoded(nq * k * d);
    std::vector<idx_t> labels(nq * k);
    f.flash->search_and_return_codes(
            nq,
            f.xq.data(),
            k,
            all_dist.data(),
            labels.data(),
            codes.data(),
            true,
            &params);
    CHECK(count_duplicates(labels, k) == 0);
    f.flash->sa_decode(nq * k, codes.data(), decoded.data());
    for (size_t at = 0; at < nq * k; at++) {
        double exact = 0;
        for (size_t j = 0; j < d; j++) {
            const double q = f.xq[at / k * d + j], x = decoded[at * d + j];
            exact += similar ? q * x : (q - x) * (q - x);
        }
        CHECK(about(all_dist[at], exact, 1e-2));
    }

    // a budget below k, and one that sees to k results
    params.max_codes = 3;
    const Results few = search(*f.flash.ivf, f.xq, k, &params);
    CHECK(std::count(few.labels.begin(), few.labels.end(), -1) > 0);
    params.ensure_topk_full = true;
    const Results full = search(*f.flash.ivf, f.xq, k, &params);
    CHECK(std::count(full.labels.begin(), full.labels.end(), -1) == 0);
    CHECK(count_duplicates(full.labels, k) == 0);

    // lists without results in a row end a range search
    params = {};
    params.nprobe = nlist;
    const float radius = similar ? 60.0f : 15.0f;
    faiss::RangeSearchResult everything(nq), cut(nq);
    f.flash->range_search(nq, f.xq.data(), radius, &everything, &params);
    params.max_empty_result_buckets = 1;
    f.flash.counters->reset();
    f.flash->range_search(nq, f.xq.data(), radius, &cut, &params);
    CHECK(f.flash.counters->entries < nq * f.flash.ncopies(*f.flash.ivf));
    CHECK(cut.lims[nq] <= everything.lims[nq]);
}
#endif
