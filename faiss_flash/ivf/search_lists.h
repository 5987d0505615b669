#pragma once

#include <functional>
#include <vector>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// The lists nearest to n queries, (n, nprobe).
struct Probes {
    std::vector<idx_t> keys;
    std::vector<float> dist;
};

/// Asks the quantizer, as FAISS's searches do; adds to FAISS's
/// indexIVF_stats.quantization_time.
Probes probe_lists(
        const faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        const faiss::IVFSearchParameters* params);

/// Search parameters of the type that IVF indexes take; throws for others.
const faiss::IVFSearchParameters* ivf_parameters(
        const faiss::SearchParameters* params);

/// Queries and the lists to scan for them, as in FAISS's search_preassigned.
struct ListSearch {
    const faiss::IndexIVF& index;
    const faiss::IVFSearchParameters* params; ///< or nullptr: the index's own
    idx_t n;
    const float* x;          ///< (n, d)
    const idx_t* keys;       ///< (n, nprobe), below nlist; −1: none
    const float* coarse_dis; ///< (n, nprobe)
    bool store_pairs;
    /// A scanner of the index for these queries. It alone sees to it that a
    /// query meets no id twice; see counting_scanner.h.
    std::function<faiss::InvertedListScanner*(const faiss::IDSelector*)>
            make_scanner;

    size_t nprobe() const;
};

/// Whether FAISS's own search_preassigned, on an index without copies, does
/// what search_lists does; its modes 1 and 2 do not fill a caller's heap.
bool stock_search_does(
        const faiss::IndexIVF& index,
        bool store_pairs,
        const faiss::IVFSearchParameters* params);

/** Posting-list search where each query is one scanner's from beginning to
 * end, so that a vector with copies is met once; FAISS's own loops give a
 * query to several scanners in parallel modes 1 and 2.
 *
 * Parameters mean what they mean in FAISS. Beyond it:
 * - every parallel mode scans the queries in parallel (mode 0 leaves that to
 *   IndexIVF::search) and obeys max_codes and ensure_topk_full;
 * - selectors and store_pairs may be combined;
 * - with PARALLEL_MODE_NO_HEAP_INIT, ids that are in the caller's heap are
 *   not added to it again, nor ids that are found twice.
 *
 * Adds to stats.nq, nlist and nheap_updates. Distances are counted by the
 * scanners. Exceptions are carried out of the parallel region.
 *
 * @param distances  (n, k), as are the labels
 */
void search_lists(
        const ListSearch& search,
        idx_t k,
        float* distances,
        idx_t* labels,
        faiss::IndexIVFStats& stats);

/// The same for all results within a radius.
void range_search_lists(
        const ListSearch& search,
        float radius,
        faiss::RangeSearchResult& result,
        faiss::IndexIVFStats& stats);

#if FAISS_FLASH_HAS_SEARCH1
/// The same for one query's results of the caller's own kind.
void search_lists_for_one(
        const ListSearch& search,
        faiss::ResultHandler& handler);
#endif

} // namespace faiss_flash
