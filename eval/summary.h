#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <eval/curves.h>

namespace faiss_flash {

/// Recall values at which methods are compared.
extern const std::vector<double> recall_targets;

/// Mean over the seeds that have a value, and their sample standard
/// deviation (from two values on).
struct Spread {
    std::optional<double> mean;
    std::optional<double> std;
};

Spread spread(const std::vector<double>& values);

/// The place on a curve where it reaches a recall: between points `left` and
/// `left` + 1, at `part` in [0, 1] of the way in recall.
struct CurvePlace {
    size_t left = 0;
    double part = 0;
};

/** Where a curve first reaches `recall`.
 *
 * @param recalls  of one seed's curve, by increasing nprobe
 * @return nothing if it is never reached; the first point alone if that one
 *         is above already and `starts_at_one` (its nprobe is 1, so that no
 *         cheaper search exists), otherwise nothing
 */
std::optional<CurvePlace> find_recall(
        const std::vector<double>& recalls,
        double recall,
        bool starts_at_one);

/// The value of a positive quantity at that place: linear in its logarithm.
double value_at(const std::vector<double>& values, const CurvePlace& place);

/// Recall where a curve's cost is `dco`, linear in log cost; nothing outside
/// the costs that were measured.
std::optional<double> recall_at_cost(
        const std::vector<double>& costs,
        const std::vector<double>& recalls,
        double dco);

/// One method and codec at one recall target; mean over seeds. Empty: the
/// target is not reached (or stock FAISS was not measured).
struct SummaryEntry {
    std::string dataset, method, codec, params;
    size_t n = 0, nlist = 0;
    double recall = 0;        ///< the target
    size_t seeds = 0;         ///< seeds measured
    size_t seeds_reached = 0; ///< seeds that reach the target
    Spread dco_raw, dco_unique, dco_coarse, nprobe, qps;
    /// stock FAISS's raw count over this method's raw, or unique, count;
    /// each seed against stock FAISS with the same seed
    Spread factor_raw, factor_unique;
    /// the same with the coarse distances added on both sides
    Spread factor_total_raw, factor_total_unique;
    /// this method's recall at the raw count stock FAISS needs for the target
    Spread recall_at_equal_dco;
    double copies = 0, bytes_per_vector = 0, train_s = 0; ///< means
};

/// One entry per dataset, nlist, codec, method with its params, and target,
/// in the order the rows have. Of rows with the same nprobe the last counts.
std::vector<SummaryEntry> summarize(const std::vector<CurveRow>& rows);

/// The list of objects that summary.json holds.
nlohmann::ordered_json to_json(const std::vector<SummaryEntry>& entries);

} // namespace faiss_flash
