#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// Base vectors, queries and the queries' true neighbours, in memory.
struct SearchTask {
    size_t n = 0, d = 0, nq = 0;
    std::vector<float> base;    ///< (n, d)
    std::vector<float> queries; ///< (nq, d)
    /// ids of the true nearest vectors by L2 distance, nearest first,
    /// (nq, true_k)
    std::vector<int64_t> true_ids;
    size_t true_k = 0;
};

/// Results that recall looks at.
constexpr size_t recall_k = 10;

/** Recall@10: of each query's first 10 results, those that are hits, over
 * 10; the mean over the queries.
 *
 * A hit is one of the 10 true neighbours, or a vector exactly as far away as
 * the 10th of them (a tie, which the ground truth broke by chance). Both
 * distances are computed here, in double, from the raw vectors, whatever the
 * index returned. An id counts once per query.
 *
 * @param labels  (task.nq, k), best first, −1 for none; k ≥ 10
 */
double recall_at_10(const SearchTask& task, size_t k, const idx_t* labels);

} // namespace faiss_flash
