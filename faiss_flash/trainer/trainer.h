#pragma once

#include <functional>
#include <vector>

#include <faiss_flash/engine/engine.h>
#include <faiss_flash/trainer/model.h>
#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/// What one pass did.
struct PassReport {
    int redo = 0;
    Pass pass = Pass::hard;
    int number = 0; ///< within its kind, from 0
    /// of the model the pass ran with: hard passes Σ distance (FAISS's
    /// objective), soft passes log-likelihood per unit of weight
    double objective = 0;
    double seconds = 0;            ///< since training began
    double accumulate_seconds = 0; ///< inside the engine, summed up
    double imbalance = 1;          ///< k Σ n_k² / n²; 1 is perfectly even
    double entries_per_vector = 1;
    double dropped_mass = 0;
    int nsplit = 0; ///< empty clusters split or components re-seeded
};

/// Everything a training run needs to know. k-means is hard passes only; a
/// mixture is hard passes followed by soft ones.
struct TrainingPlan {
    size_t k = 0;
    Metric metric = Metric::l2;
    int hard_passes = 0;
    int soft_passes = 0;
    int nredo = 1;
    int64_t seed = 1234; ///< FAISS's seed, already resolved
    bool spherical = false;
    bool int_centroids = false;
    /// centroids given by the caller, (n_given, d); the rest is initialised.
    /// As in FAISS, attempts after the first take up these where the attempt
    /// before left them.
    std::vector<float> given;
    bool freeze_given = false;
    /// stop hard passes when the objective's relative change is at most
    /// this; negative: never
    double early_stop_threshold = -1;

    EngineOptions engine_options;

    // soft passes, see GMMParameters
    double em_tolerance = 0;
    Covariance covariance = Covariance::spherical;
    double variance_floor = 0;
    double min_weight = 0;

    /// Initialise centroids [n_given, k) for attempt `redo`, where the
    /// caller wants something else than random rows.
    std::function<void(int redo, std::vector<float>& centroids)> init;
    /// Called after every pass; where long work is reported or interrupted
    /// (by throwing).
    std::function<void(const PassReport&)> on_pass;
    /// Statistics of this process's part in, of the whole data out; empty:
    /// this process has all the data. Every participant then takes the same
    /// decisions, given the same centroids to start from: `given` must hold
    /// all k (each would pick them from its own rows otherwise).
    std::function<void(Statistics&)> all_reduce;
};

struct TrainingResult {
    Model model; ///< with variances and weights if any pass was run
    /// passes of the attempt that was kept and of those before it, in order
    std::vector<PassReport> passes;
};

/** The one training loop: k-means and EM alike.
 *
 * Each pass folds the data into sufficient statistics (engine), optionally
 * adds those of other participants, and updates the model from them.
 * Deterministic given plan, engine and source.
 */
TrainingResult train(
        const TrainingPlan& plan,
        const Engine& engine,
        const VectorSource& source);

} // namespace faiss_flash
