#include <eval/rerank.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <faiss/utils/distances.h>

namespace faiss_flash {

size_t rerank(
        const SearchTask& task,
        faiss::MetricType metric,
        size_t r,
        const idx_t* candidates,
        size_t k,
        idx_t* labels) {
    const bool l2 = metric == faiss::METRIC_L2;
    size_t distances = 0;
#pragma omp parallel for reduction(+ : distances)
    for (int64_t query = 0; query < static_cast<int64_t>(task.nq); query++) {
        const float* q = task.queries.data() + query * task.d;
        std::vector<std::pair<float, idx_t>> ranked;
        ranked.reserve(r);
        for (size_t i = 0; i < r; i++) {
            const idx_t id = candidates[query * r + i];
            if (id < 0) {
                continue;
            }
            const float* x = task.base.data() + id * task.d;
            const float dist = l2 ? faiss::fvec_L2sqr(q, x, task.d)
                                  : -faiss::fvec_inner_product(q, x, task.d);
            distances++;
            ranked.emplace_back(dist, id);
        }
        const size_t kept = std::min(k, ranked.size());
        std::partial_sort(ranked.begin(), ranked.begin() + kept, ranked.end());
        for (size_t i = 0; i < k; i++) {
            labels[query * k + i] = i < kept ? ranked[i].second : -1;
        }
    }
    return distances;
}

} // namespace faiss_flash
