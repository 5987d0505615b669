// Search parameters with copies, what FAISS's helpers call, and what a search
// refuses.

#include <tests/contract_results.h>

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

/// Remembers the parameters it was given.
struct NotingQuantizer : faiss::IndexFlat {
    mutable const faiss::SearchParameters* seen = nullptr;

    using faiss::IndexFlat::IndexFlat;
    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params) const override {
#pragma omp critical
        seen = params ? params : seen;
        IndexFlat::search(n, x, k, distances, labels, nullptr);
    }
};

} // namespace

TEST_CASE("contract: parameters for the quantizer reach it") {
    const std::vector<float> x = clustered(nb, d, 1);
    NotingQuantizer quantizer(d, faiss::METRIC_L2);
    quantizer.add(nlist, x.data());
    Flash flash = make_flash(Codec::flat, &quantizer, nlist);
    flash.options->policy = AssignmentPolicy::top_m(2);
    flash->train(nb, x.data());
    flash->add(nb, x.data());
    faiss::SearchParameters for_quantizer;
    faiss::SearchParametersIVF params;
    params.nprobe = 3;
    params.quantizer_params = &for_quantizer;
    search(*flash.ivf, x, 2, &params);
    CHECK(quantizer.seen == &for_quantizer);
    quantizer.seen = nullptr;
    faiss::RangeSearchResult result(nb);
    flash->range_search(nb, x.data(), 1, &result, &params);
    CHECK(quantizer.seen == &for_quantizer);
}

TEST_CASE("contract: reconstruct_batch") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    f.flash->set_direct_map_type(faiss::DirectMap::Hashtable);
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = nb - 1 - i;
    }
    std::vector<float> y(nb * d);
    f.flash->reconstruct_batch(nb, ids.data(), y.data());
    for (size_t i = 0; i < nb; i++) {
        CHECK(std::equal(&y[i * d], &y[i * d] + d, &f.xb[ids[i] * d]));
    }
    ids[nb / 2] = -5; // noticed in a parallel region
    CHECK_THROWS_AS(
            f.flash->reconstruct_batch(nb, ids.data(), y.data()),
            faiss::FaissException);
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

TEST_CASE("contract: max_lists_num is FastScan's") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    f.add();
    faiss::SearchParametersIVF params;
    params.nprobe = 5;
    const Results expected = search(*f.flash.ivf, f.xq, 7, &params);
    params.max_lists_num = 1;
    CHECK(search(*f.flash.ivf, f.xq, 7, &params).labels == expected.labels);
}
#endif
