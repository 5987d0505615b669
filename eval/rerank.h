#pragma once

#include <cstddef>

#include <eval/recall.h>

namespace faiss_flash {

/** Exact re-ranking: of each query's candidates, the k nearest by distances
 * computed from the raw vectors.
 *
 * @param metric      METRIC_L2 or METRIC_INNER_PRODUCT
 * @param candidates  (task.nq, r) ids, each once per query, −1 for none
 * @param labels      (task.nq, k) result, best first, −1 for none
 * @return distances computed, all queries together
 */
size_t rerank(
        const SearchTask& task,
        faiss::MetricType metric,
        size_t r,
        const idx_t* candidates,
        size_t k,
        idx_t* labels);

} // namespace faiss_flash
