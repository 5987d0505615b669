#include <eval/recall.h>

#include <algorithm>

namespace faiss_flash {

namespace {

double squared_distance(size_t d, const float* x, const float* y) {
    double sum = 0;
    for (size_t j = 0; j < d; j++) {
        const double difference =
                static_cast<double>(x[j]) - static_cast<double>(y[j]);
        sum += difference * difference;
    }
    return sum;
}

size_t hits_of_query(
        const SearchTask& task,
        size_t query,
        const idx_t* labels) {
    const float* q = task.queries.data() + query * task.d;
    const int64_t* wanted = task.true_ids.data() + query * task.true_k;
    const auto distance = [&](int64_t id) {
        return squared_distance(task.d, q, task.base.data() + id * task.d);
    };
    const double radius = distance(wanted[recall_k - 1]);
    size_t hits = 0;
    for (size_t i = 0; i < recall_k; i++) {
        const idx_t id = labels[i];
        const bool again = std::find(labels, labels + i, id) != labels + i;
        if (id < 0 || again) {
            continue;
        }
        hits += std::find(wanted, wanted + recall_k, id) != wanted + recall_k ||
                distance(id) <= radius;
    }
    return hits;
}

} // namespace

double recall_at_10(const SearchTask& task, size_t k, const idx_t* labels) {
    size_t hits = 0;
    for (size_t query = 0; query < task.nq; query++) {
        hits += hits_of_query(task, query, labels + query * k);
    }
    return static_cast<double>(hits) / static_cast<double>(task.nq * recall_k);
}

} // namespace faiss_flash
