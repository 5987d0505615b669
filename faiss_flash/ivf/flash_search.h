#pragma once

// The searches of IVFFlash<Base>, for IndexIVFFlash.cpp alone. Without copies
// they are FAISS's own, with a scanner that counts; with copies the loops of
// search_lists.h give each query to one scanner.

#include <faiss/utils/utils.h>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/counting_scanner.h>
#include <faiss_flash/ivf/check_index.h>
#include <faiss_flash/ivf/search_lists.h>

namespace faiss_flash {

template <class Base>
faiss::InvertedListScanner* IVFFlash<Base>::make_scanner(
        SearchCounters& counts,
        FAISS_FLASH_SCANNER_PARAMETERS) const {
    const faiss::IDSelector* callers_sel = sel;
    const bool callers_store_pairs = store_pairs;
    return make_counting_scanner(
            *this->invlists,
            counts,
            has_copies,
            (size_t)this->ntotal,
            callers_store_pairs,
            callers_sel,
            [&](bool store_pairs) {
                const faiss::IDSelector* sel = nullptr;
                return Base::get_InvertedListScanner(
                        FAISS_FLASH_SCANNER_ARGUMENTS);
            });
}

template <class Base>
faiss::InvertedListScanner* IVFFlash<Base>::get_InvertedListScanner(
        FAISS_FLASH_SCANNER_PARAMETERS) const {
    return make_scanner(counters, FAISS_FLASH_SCANNER_ARGUMENTS);
}

template <class Base>
void IVFFlash<Base>::count_search(
        idx_t n,
        const SearchCounters& counts,
        faiss::IndexIVFStats& found,
        faiss::IndexIVFStats* stats) const {
    counters.queries += n;
    counters.entries += counts.entries;
    counters.distances += counts.distances;
    found.ndis = counts.distances;
    if (faiss::IndexIVFStats* sum = stats ? stats : default_stats()) {
        sum->add(found);
    }
}

template <class Base>
void IVFFlash<Base>::search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    check_queries(*this, n, x);
    check_parallel_mode(*this, false);
    Base::search(n, x, k, distances, labels, params);
}

template <class Base>
void IVFFlash<Base>::search_and_reconstruct(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        float* recons,
        const faiss::SearchParameters* params) const {
    check_queries(*this, n, x);
    Base::search_and_reconstruct(n, x, k, distances, labels, recons, params);
}

// FAISS's own, which before 1.7.4 does not get to our
// range_search_preassigned
template <class Base>
void IVFFlash<Base>::range_search(
        idx_t n,
        const float* x,
        float radius,
        faiss::RangeSearchResult* result,
        const faiss::SearchParameters* params) const {
    check_queries(*this, n, x);
    const faiss::IVFSearchParameters* ivf = ivf_parameters(params);
    const Probes probes = probe_lists(*this, n, x, ivf);
    const double begin = faiss::getmillisecs();
    range_search_preassigned(
            n,
            x,
            radius,
            probes.keys.data(),
            probes.dist.data(),
            result,
            false,
            ivf,
            &faiss::indexIVF_stats);
    faiss::indexIVF_stats.search_time += faiss::getmillisecs() - begin;
}

#if FAISS_FLASH_HAS_SEARCH1
template <class Base>
void IVFFlash<Base>::search1(
        const float* x,
        faiss::ResultHandler& handler,
        faiss::SearchParameters* params) const {
    check_queries(*this, 1, x);
    const faiss::IVFSearchParameters* ivf = ivf_parameters(params);
    const Probes probes = probe_lists(*this, 1, x, ivf);
    const double begin = faiss::getmillisecs();
    const auto make = [&](const faiss::IDSelector* sel) {
        return get_InvertedListScanner(false, sel, ivf);
    };
    search_lists_for_one(
            {*this,
             ivf,
             1,
             x,
             probes.keys.data(),
             probes.dist.data(),
             false,
             make},
            handler);
    faiss::indexIVF_stats.search_time += faiss::getmillisecs() - begin;
    counters.queries++;
}
#endif

template <class Base>
void IVFFlash<Base>::search_preassigned(
        idx_t n,
        const float* x,
        idx_t k,
        const idx_t* assign,
        const float* centroid_dis,
        float* distances,
        idx_t* labels,
        bool store_pairs,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats) const {
    check_ready("search", *this);
    check_trained("search", *this);
    check_parallel_mode(*this, false);
    check_keys(*this, n, assign, params);
    FAISS_THROW_IF_NOT_FMT(
            k > 0, "search: k = %" PRId64 " should be above 0", (int64_t)k);
    if (!has_copies && stock_search_does(*this, store_pairs, params)) {
        Base::search_preassigned(
                n,
                x,
                k,
                assign,
                centroid_dis,
                distances,
                labels,
                store_pairs,
                params,
                stats);
        counters.queries += n;
        return;
    }
    SearchCounters counts;
    faiss::IndexIVFStats found;
    const auto make = [&](const faiss::IDSelector* sel) {
        return make_scanner(counts, FAISS_FLASH_SCANNER_ARGUMENTS);
    };
    search_lists(
            {*this, params, n, x, assign, centroid_dis, store_pairs, make},
            k,
            distances,
            labels,
            found);
    count_search(n, counts, found, stats);
}

template <class Base>
void IVFFlash<Base>::range_search_preassigned(
        idx_t n,
        const float* x,
        float radius,
        const idx_t* keys,
        const float* coarse_dis,
        faiss::RangeSearchResult* result,
        bool store_pairs,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats) const {
    check_ready("range_search", *this);
    check_trained("range_search", *this);
    check_parallel_mode(*this, true);
    check_keys(*this, n, keys, params);
    if (!has_copies) {
        Base::range_search_preassigned(
                n,
                x,
                radius,
                keys,
                coarse_dis,
                result,
                store_pairs,
                params,
                stats);
        counters.queries += n;
        return;
    }
    SearchCounters counts;
    faiss::IndexIVFStats found;
    const auto make = [&](const faiss::IDSelector* sel) {
        return make_scanner(counts, FAISS_FLASH_SCANNER_ARGUMENTS);
    };
    range_search_lists(
            {*this, params, n, x, keys, coarse_dis, store_pairs, make},
            radius,
            *result,
            found);
    count_search(n, counts, found, stats);
}

} // namespace faiss_flash
