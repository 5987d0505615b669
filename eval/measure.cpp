#include <eval/measure.h>

#include <cmath>
#include <vector>

#include <eval/median.h>
#include <eval/rerank.h>
#include <eval/stopwatch.h>

namespace faiss_flash {

namespace {

constexpr size_t most_runs = 3;
constexpr double enough_seconds = 0.05;

struct Results {
    std::vector<idx_t> candidates; ///< (nq, r)
    std::vector<float> dist;       ///< (nq, r)
    std::vector<idx_t> labels;     ///< (nq, k), used with re-ranking
    const idx_t* final_labels = nullptr;
    size_t reranked = 0; ///< distances computed by re-ranking
};

void search(
        const BuiltIndex& built,
        const Codec& codec,
        const SearchTask& task,
        size_t k,
        Results& results) {
    const bool reranks = codec.rerank > 0;
    const size_t r =
            reranks ? static_cast<size_t>(std::ceil(codec.rerank * k)) : k;
    results.candidates.resize(task.nq * r);
    results.dist.resize(task.nq * r);
    built.ivf->search(
            task.nq,
            task.queries.data(),
            r,
            results.dist.data(),
            results.candidates.data());
    results.final_labels = results.candidates.data();
    if (reranks) {
        results.labels.resize(task.nq * k);
        results.reranked =
                rerank(task,
                       built.ivf->metric_type,
                       r,
                       results.candidates.data(),
                       k,
                       results.labels.data());
        results.final_labels = results.labels.data();
    }
}

} // namespace

Measurement measure(
        BuiltIndex& built,
        const Codec& codec,
        const SearchTask& task,
        size_t k,
        size_t nprobe) {
    built.ivf->nprobe = nprobe;
    built.quantizer->distances = 0;
    faiss::indexIVF_stats.reset();
    if (built.counters) {
        built.counters->reset();
    }

    Results results;
    std::vector<double> seconds;
    double total_seconds = 0;
    const auto timed_search = [&] {
        Stopwatch watch;
        search(built, codec, task, k, results);
        seconds.push_back(watch.seconds());
        total_seconds += seconds.back();
    };

    timed_search();
    size_t raw = faiss::indexIVF_stats.ndis, unique = raw;
    if (built.counters) {
        raw = built.counters->entries;
        unique = built.counters->distances;
    }
    const size_t coarse = built.quantizer->distances;

    Measurement measured;
    const double nq = static_cast<double>(task.nq);
    measured.dco_raw = static_cast<double>(raw + results.reranked) / nq;
    measured.dco_unique = static_cast<double>(unique + results.reranked) / nq;
    measured.dco_coarse = static_cast<double>(coarse) / nq;
    measured.recall = recall_at_10(task, k, results.final_labels);

    while (total_seconds < enough_seconds && seconds.size() < most_runs) {
        timed_search();
    }
    measured.search_s = median(seconds);
    return measured;
}

} // namespace faiss_flash
