#pragma once

#include <functional>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// Makes the base class's scanner, without a selector.
using ScannerMaker =
        std::function<faiss::InvertedListScanner*(bool store_pairs)>;

/** The base class's scanner, counted, and with `has_copies` deduplicated.
 *
 * Before distances are computed, the entries of a list are cut into runs of
 * those whose id the query meets for the first time and the caller's
 * selector takes; the base scanner sees only these runs. So no id is
 * returned twice, no vector's distance is computed twice, and FAISS's
 * scanning loops run as fast as without a selector. set_query() starts a new
 * query.
 *
 * What was scanned is added to index counters when the scanner is destroyed;
 * see SearchCounters. One thread at a time, unlike FAISS's own scanners.
 *
 * @param nids   most ids are below this (in [0, nids)); others may occur and
 *               cost more to recognise. Memory: nids / 5 bytes
 * @param lists  where ids are looked up with store_pairs; must outlive the
 *               scanner, as must `sel` and `counters`
 */
faiss::InvertedListScanner* make_counting_scanner(
        const faiss::InvertedLists& lists,
        SearchCounters& counters,
        bool has_copies,
        size_t nids,
        bool store_pairs,
        const faiss::IDSelector* sel,
        const ScannerMaker& make_base);

} // namespace faiss_flash
