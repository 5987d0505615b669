#pragma once

#include <cstddef>
#include <vector>

#include <eval/recall.h>
#include <eval/stopwatch.h>

#include <faiss/IndexIVF.h>

namespace faiss_flash {

/// How two indexes are timed against each other.
struct PairOptions {
    size_t k = recall_k;
    size_t batch = 1000; ///< queries per call of search()
    int repetitions = 5; ///< each searches all queries with both indexes
    size_t queries = 0;  ///< the first so many; 0: all of the task's
};

/// Seconds per query, all threads' CPU time in the second.
struct QuerySeconds {
    double wall = 0, cpu = 0;
};

/// Medians over the repetitions. Ratios are of the same repetition: time of
/// `stock` over time of `flash`, above 1 where `flash` is faster.
struct PairTimes {
    QuerySeconds stock, flash;
    double wall_ratio = 0, cpu_ratio = 0;
    double wall_ratio_min = 0, wall_ratio_max = 0;
};

/** Search with both indexes, each at its own nprobe, in the calling process's
 * OpenMP threads.
 *
 * Where an index happens to lie in memory changes its speed by ten per cent
 * and more. So there are several equal stock indexes, which take turns from
 * repetition to repetition.
 *
 * Every call on one index is followed by the same call on the other, in
 * alternating order, so that whatever else the machine does falls on both.
 * CPU time leaves out what other processes took; threads that wait for each
 * other are in it unless they sleep (OMP_WAIT_POLICY=passive).
 */
PairTimes time_pair(
        const SearchTask& task,
        const std::vector<const faiss::IndexIVF*>& stocks,
        const faiss::IndexIVF& flash,
        const PairOptions& options);

/// An nprobe and what it finds.
struct Operating {
    size_t nprobe = 0; ///< 0: no nprobe reaches the recall
    double recall = 0;
    double recall_before = 0; ///< at nprobe − 1
};

/// The smallest nprobe with at least this recall@10, recall taken to rise
/// with nprobe; the index's own nprobe is set to it.
Operating reach_recall(
        const SearchTask& task,
        faiss::IndexIVF& index,
        double recall);

} // namespace faiss_flash
