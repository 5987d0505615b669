#pragma once

#include <memory>
#include <string>
#include <vector>

#include <faiss_flash/engine/engine_options.h>
#include <faiss_flash/faiss_compat.h>
#include <faiss_flash/trainer/model.h>
#include <faiss_flash/trainer/source.h>
#include <faiss_flash/trainer/statistics.h>

namespace faiss_flash {

struct AssignmentPolicy;

/// One kind of pass over the training set.
enum class Pass {
    hard, ///< k-means: every vector counts for its nearest centroid
    soft  ///< EM: every vector is shared by its responsibilities
};

/// A training set as one engine holds it (in place, or on a device) between
/// passes.
class TrainingSet {
   public:
    virtual ~TrainingSet() = default;

    /// One pass: `out` is reset to the statistics of the whole set under
    /// `model`. O(n·k·d) operations; N×K distances or responsibilities are
    /// never stored. The same set, model and engine give the same bytes,
    /// whatever the number of threads.
    virtual void accumulate(const Model& model, Pass pass, Statistics& out) = 0;
};

/// Does the arithmetic of training and assignment. Knows shapes and
/// pointers; does not know files or FAISS indexes. Inputs were
/// checked by the caller: finite, 1 ≤ m ≤ k, matching dimensions.
class Engine {
   public:
    virtual ~Engine() = default;
    virtual const char* name() const = 0;

    /// `source` must outlive the returned set.
    virtual std::unique_ptr<TrainingSet> open(
            const VectorSource& source,
            const EngineOptions& options = {}) const = 0;

    /// The m best centroids of each vector, best first (ties: lowest number).
    /// @param labels  (n, m)
    /// @param dist    (n, m): ‖x − c‖², or x·c under Metric::inner_product
    virtual void nearest(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* dist) const = 0;

    /// The m largest responsibilities p(k | x) of each vector, largest first
    /// (ties: lowest number). Components that hold less than
    /// `max_dropped_mass` of a vector together may be left out: where fewer
    /// than m remain, labels are −1 and responsibilities 0.
    /// @param labels            (n, m)
    /// @param responsibilities  (n, m)
    /// @param log_likelihood    (n) log p(x), or nullptr
    virtual void responsibilities(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* responsibilities,
            float* log_likelihood) const = 0;

    /// Posting lists of vectors under a policy, see assign_lists(); the model
    /// is under L2. This one applies the rules on the host, to candidates
    /// from nearest() or responsibilities(); engines that keep candidates
    /// elsewhere override it.
    /// @param lists  (n, policy.list_limit())
    virtual void assign(
            const AssignmentPolicy& policy,
            const Model& model,
            size_t n,
            const float* x,
            idx_t* lists) const;
};

/// Bound on the responsibility of one vector that a soft pass may leave out,
/// all left-out components together.
constexpr double max_dropped_mass = 1e-6;

/// Engines that this build has and this machine can run, best first.
std::vector<std::string> engine_names();

/// The engine called `name`: one of engine_names() or "auto" (the first of
/// them). The environment variable FAISS_FLASH_ENGINE, where set and
/// not empty, overrides the argument. Throws if there is no such engine.
const Engine& get_engine(const std::string& name = "auto");

/// The same for one piece of work of so many multiply-adds: "auto" then means
/// the CPU where that would be done before a device is ready.
const Engine& get_engine(const std::string& name, double multiply_adds);

/// Each engine's instance; defined in its folder. There is no CUDA engine
/// (nullptr) in a build without it or on a machine without a device for it.
const Engine& cpu_engine();
const Engine& reference_engine();
const Engine* cuda_engine();

} // namespace faiss_flash
