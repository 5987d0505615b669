#pragma once

#include <functional>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// Makes the base class's scanner with these arguments of
/// get_InvertedListScanner.
using ScannerMaker = std::function<faiss::InvertedListScanner*(
        bool store_pairs,
        const faiss::IDSelector* sel)>;

/** The base class's scanner, counted, and with `has_copies` deduplicated.
 *
 * FAISS's scanners ask their selector exactly once per entry and before the
 * distance is computed (Flat, PQ and SQ, all code paths of 1.7.3 to 1.15).
 * So the base scanner is made with a selector of ours, which accepts an id
 * the first time a query meets it and only if the caller's selector does:
 * no id is returned twice and no vector's distance is computed twice.
 * set_query() starts a new query.
 *
 * What was scanned is added to index counters when the scanner is destroyed;
 * see SearchCounters. One thread at a time, unlike FAISS's own scanners.
 *
 * @param lists  where ids are looked up with store_pairs; must outlive the
 *               scanner, as must `sel` and `counters`
 */
faiss::InvertedListScanner* make_counting_scanner(
        const faiss::InvertedLists& lists,
        SearchCounters& counters,
        bool has_copies,
        bool store_pairs,
        const faiss::IDSelector* sel,
        const ScannerMaker& make_base);

} // namespace faiss_flash
