#include <eval/sweep.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <stdexcept>

#include <omp.h>

#include <datasets/progress.h>
#include <eval/built_index.h>
#include <eval/interrupt.h>
#include <eval/measure.h>
#include <eval/run_info.h>
#include <eval/trained_quantizer.h>
#include <faiss_flash/engine/engine.h>
#include <faiss_flash/version.h>

namespace faiss_flash {

namespace {

/// Automatic nprobe lists end once recall is high, or has stopped rising (as
/// coarse codes let it).
bool enough(const std::vector<double>& recalls) {
    const double last = recalls.back();
    return last > 0.995 ||
            (recalls.size() > 2 && last - recalls.end()[-3] < 0.001);
}

void check_codec(const Codec& codec, const SearchTask& task) {
    if (codec.kind != Codec::Kind::pq) {
        return;
    }
    if (task.d % codec.pq_m != 0) {
        throw std::invalid_argument(
                "--codec " + codec.name + ": dimension " +
                std::to_string(task.d) + " is not a multiple of " +
                std::to_string(codec.pq_m));
    }
    if (task.n < 256) {
        throw std::invalid_argument(
                "--codec " + codec.name +
                ": PQ needs at least 256 vectors, there are " +
                std::to_string(task.n));
    }
}

class Sweep {
   public:
    Sweep(const Arguments& arguments,
          const SweepPlan& plan,
          const LoadedTask& loaded,
          const std::function<void(const CurveRow&)>& on_row)
            : arguments_(arguments),
              plan_(plan),
              loaded_(loaded),
              task_(loaded.task),
              on_row_(on_row) {}

    void run() {
        for (size_t nlist : plan_.nlist) {
            for (size_t i = 0; i < arguments_.seeds; i++) {
                const int seed = arguments_.first_seed + static_cast<int>(i);
                run_seed(training_options(nlist, seed));
            }
        }
    }

   private:
    TrainingOptions training_options(size_t nlist, int seed) const {
        TrainingOptions options;
        options.nlist = nlist;
        options.metric = plan_.metric;
        options.niter = arguments_.niter;
        options.em_niter = arguments_.em_niter;
        options.em_tolerance = arguments_.em_tolerance;
        options.covariance = covariance_by_name(arguments_.covariance);
        options.max_points_per_centroid = arguments_.max_points_per_centroid;
        options.seed = seed;
        options.engine = arguments_.engine;
        return options;
    }

    void run_seed(const TrainingOptions& options) {
        std::map<std::string, TrainedQuantizer> trained;
        for (const Method& method : plan_.methods) {
            const std::string trainer = method.trainer_name();
            if (!trained.count(trainer)) {
                trained[trainer] = train_quantizer(
                        method, options, task_.n, task_.d, task_.base.data());
                std::printf(
                        "%s, nlist %zu, seed %d: trained in %.1f s, %d "
                        "passes\n",
                        trainer.c_str(),
                        options.nlist,
                        options.seed,
                        trained[trainer].seconds,
                        trained[trainer].passes);
                std::fflush(stdout);
            }
            run_method(method, options, trained[trainer]);
        }
    }

    /// One index per storage, measured with each codec that uses it.
    void run_method(
            const Method& method,
            const TrainingOptions& options,
            TrainedQuantizer& trained) {
        const AssignmentPolicy policy =
                make_policy(method.rule, arguments_.policy);
        std::set<std::string> done;
        for (const Codec& storage : plan_.codecs) {
            if (!done.insert(storage.storage).second) {
                continue;
            }
            BuiltIndex built = build_index(
                    method,
                    policy,
                    storage,
                    options,
                    trained,
                    task_.n,
                    task_.d,
                    task_.base.data());
            for (const Codec& codec : plan_.codecs) {
                if (codec.storage != storage.storage) {
                    continue;
                }
                CurveRow row = row_for(method, policy, codec, options);
                row.copies = built.copies;
                row.bytes_per_vector = built.bytes_per_vector(codec);
                row.train_s = trained.seconds + built.code_train_s;
                row.add_s = built.add_s;
                run_curve(built, codec, row);
            }
        }
    }

    /// Measure every nprobe; `row` has everything that does not depend on
    /// it.
    void run_curve(BuiltIndex& built, const Codec& codec, CurveRow row) {
        const bool automatic = arguments_.nprobe.empty();
        const std::vector<size_t> probes =
                automatic ? automatic_nprobe(row.nlist) : arguments_.nprobe;
        ProgressBar progress(
                "searching " + row.method() + " " + codec.name,
                static_cast<double>(probes.size()));
        std::vector<double> recalls;
        for (size_t nprobe : probes) {
            const Measurement measured =
                    measure(built, codec, task_, arguments_.k, nprobe);
            if (interrupted()) {
                throw std::runtime_error("interrupted");
            }
            row.nprobe = nprobe;
            row.recall_at_10 = measured.recall;
            row.dco_raw = measured.dco_raw;
            row.dco_unique = measured.dco_unique;
            row.dco_coarse = measured.dco_coarse;
            row.search_s = measured.search_s;
            row.qps = static_cast<double>(task_.nq) / measured.search_s;
            on_row_(row);
            recalls.push_back(measured.recall);
            progress.update(static_cast<double>(recalls.size()));
            if (automatic && enough(recalls)) {
                break;
            }
        }
        // The list may end early, the bar should not look as if it had.
        progress.update(static_cast<double>(probes.size()));
        progress.finish();
        std::printf(
                "%s, codec %s, seed %zu: %.2f copies, %zu points, recall up "
                "to %.3f\n",
                row.method().c_str(),
                codec.name.c_str(),
                row.seed,
                built.copies,
                recalls.size(),
                *std::max_element(recalls.begin(), recalls.end()));
        std::fflush(stdout);
    }

    CurveRow row_for(
            const Method& method,
            const AssignmentPolicy& policy,
            const Codec& codec,
            const TrainingOptions& options) const {
        CurveRow row;
        row.dataset = loaded_.name;
        row.n = task_.n;
        row.d = task_.d;
        row.metric = arguments_.metric;
        row.nlist = options.nlist;
        row.trainer = method.trainer_name();
        row.policy = method.policy_name();
        row.params = params(method, policy, codec, options);
        row.codec = codec.name;
        row.threads = static_cast<size_t>(omp_get_max_threads());
        row.engine = method.stock ? "faiss" : get_engine(options.engine).name();
        row.seed = static_cast<size_t>(options.seed);
        row.faiss_version = faiss_version();
        row.commit = build_commit();
        return row;
    }

    std::string params(
            const Method& method,
            const AssignmentPolicy& policy,
            const Codec& codec,
            const TrainingOptions& options) const {
        char text[128];
        std::snprintf(
                text,
                sizeof(text),
                "niter=%d;max_points=%d",
                options.niter,
                options.max_points_per_centroid);
        std::string all = text;
        if (!method.stock && method.trainer == Trainer::gmm) {
            std::snprintf(
                    text,
                    sizeof(text),
                    ";em_niter=%d;em_tolerance=%g",
                    options.em_niter,
                    options.em_tolerance);
            all += text;
            if (options.covariance != Covariance::spherical) {
                all += std::string(";covariance=") +
                        to_string(options.covariance);
            }
        }
        if (!method.stock && method.rule != AssignmentRule::nearest) {
            all += ";" + policy_params(policy);
        }
        if (codec.rerank > 0) {
            std::snprintf(text, sizeof(text), ";rerank=%g", codec.rerank);
            all += text;
        }
        return all;
    }

    const Arguments& arguments_;
    const SweepPlan& plan_;
    const LoadedTask& loaded_;
    const SearchTask& task_;
    const std::function<void(const CurveRow&)>& on_row_;
};

} // namespace

SweepPlan plan_sweep(const Arguments& arguments, const LoadedTask& loaded) {
    const SearchTask& task = loaded.task;
    SweepPlan plan;
    plan.methods = parse_methods(arguments.methods);
    for (const std::string& text : arguments.codecs) {
        plan.codecs.push_back(parse_codec(text, arguments.rerank));
        check_codec(plan.codecs.back(), task);
    }
    if (arguments.metric == "ip") {
        if (!loaded.angular) {
            throw std::invalid_argument(
                    "--metric ip: " + loaded.name +
                    " is not an angular set; its true neighbours are by L2");
        }
        plan.metric = faiss::METRIC_INNER_PRODUCT;
    }
    if (arguments.k > task.n) {
        throw std::invalid_argument(
                "--k " + std::to_string(arguments.k) + ": there are " +
                std::to_string(task.n) + " vectors");
    }
    plan.nlist = arguments.nlist.empty()
            ? std::vector<size_t>{automatic_nlist(task.n)}
            : arguments.nlist;
    for (size_t nlist : plan.nlist) {
        if (nlist > task.n) {
            throw std::invalid_argument(
                    "--nlist " + std::to_string(nlist) + ": there are " +
                    std::to_string(task.n) + " vectors");
        }
        for (size_t nprobe : arguments.nprobe) {
            if (nprobe > nlist) {
                throw std::invalid_argument(
                        "--nprobe " + std::to_string(nprobe) + ": nlist is " +
                        std::to_string(nlist));
            }
        }
        for (const Method& method : plan.methods) {
            if (!method.stock) {
                make_policy(method.rule, arguments.policy).check(nlist);
            }
        }
    }
    get_engine(arguments.engine); // throws if there is none
    return plan;
}

bool run_sweep(
        const Arguments& arguments,
        const SweepPlan& plan,
        const LoadedTask& loaded,
        const std::function<void(const CurveRow&)>& on_row) {
    try {
        Sweep(arguments, plan, loaded, on_row).run();
    } catch (const std::exception&) {
        // FAISS ends with an exception of its own when asked to stop.
        if (!interrupted()) {
            throw;
        }
    }
    return !interrupted();
}

} // namespace faiss_flash
