#pragma once

#include <eval/built_index.h>
#include <eval/recall.h>

namespace faiss_flash {

/// One search of all queries; distances are per query, see eval/README.md.
struct Measurement {
    double recall = 0;
    double dco_raw = 0;
    double dco_unique = 0;
    double dco_coarse = 0;
    double search_s = 0; ///< for all queries: median of several runs
};

/** Search all queries at `nprobe` for k ≥ 10 results.
 *
 * Distances are counted during the first run. Searches that take less than
 * 0.05 s are repeated, up to three runs, for the sake of the time.
 */
Measurement measure(
        BuiltIndex& built,
        const Codec& codec,
        const SearchTask& task,
        size_t k,
        size_t nprobe);

} // namespace faiss_flash
