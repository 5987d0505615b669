#pragma once

#include <functional>
#include <vector>

#include <eval/arguments.h>
#include <eval/curves.h>
#include <eval/task.h>

namespace faiss_flash {

/// Everything a sweep does, checked and in order.
struct SweepPlan {
    std::vector<Method> methods;
    std::vector<Codec> codecs;
    std::vector<size_t> nlist;
    faiss::MetricType metric = faiss::METRIC_L2;
};

/// Check the arguments against each other and the data, before any work.
/// Throws std::invalid_argument or FaissException.
SweepPlan plan_sweep(const Arguments& arguments, const LoadedTask& loaded);

/** Measure every nlist, seed, method, codec and nprobe.
 *
 * Each trainer runs once per nlist and seed; policies and codecs share what
 * it trained. Prints a line per index.
 *
 * @param on_row  called with every row as soon as it is measured
 * @return false if it was interrupted
 */
bool run_sweep(
        const Arguments& arguments,
        const SweepPlan& plan,
        const LoadedTask& loaded,
        const std::function<void(const CurveRow&)>& on_row);

} // namespace faiss_flash
