#include <faiss_flash/trainer/trainer.h>

#include <chrono>
#include <cmath>
#include <limits>

#include <faiss_flash/trainer/random_rows.h>
#include <faiss_flash/trainer/update.h>

namespace faiss_flash {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// k Σ n_k² / n², FAISS's imbalance factor
double imbalance(const std::vector<int64_t>& members) {
    double total = 0, squares = 0;
    for (int64_t count : members) {
        total += count;
        squares += (double)count * count;
    }
    return total > 0 ? squares * members.size() / (total * total) : 1;
}

/// One attempt (`redo`) of the training: its model and the loop over passes.
class Attempt {
   public:
    Attempt(const TrainingPlan& plan,
            const VectorSource& source,
            const std::vector<float>& given,
            int redo)
            : plan_(plan),
              redo_(redo) {
        model.k = plan.k;
        model.d = source.d();
        model.metric = plan.metric;
        model.means = given;
        n_given_ = given.size() / model.d;
        n_frozen_ = plan.freeze_given ? n_given_ : 0;
        model.means.resize(model.k * model.d);
        if (plan.init) {
            plan.init(redo, model.means);
        } else {
            init_random_rows(source);
        }
        post_process(plan, model);
    }

    void run(
            TrainingSet& data,
            Clock::time_point start,
            std::vector<PassReport>& reports) {
        run_hard(data, start, reports);
        if (plan_.soft_passes > 0) {
            run_soft(data, start, reports);
        }
    }

    /// The better of two attempts has the larger score.
    double score = -std::numeric_limits<double>::infinity();
    Model model;

   private:
    /// FAISS's initial centroids: rows of a seeded permutation.
    void init_random_rows(const VectorSource& source) {
        if (n_given_ == model.k) {
            return;
        }
        const std::vector<int64_t> rows = first_of_permutation(
                source.n(), model.k, plan_.seed + 1 + redo_ * 15486557L);
        source.gather(
                rows.data() + n_given_,
                model.k - n_given_,
                model.means.data() + n_given_ * model.d);
    }

    void accumulate(TrainingSet& data, Pass pass) {
        const auto start = Clock::now();
        data.accumulate(model, pass, stats_);
        if (plan_.all_reduce) {
            plan_.all_reduce(stats_);
        }
        accumulate_seconds_ += seconds_since(start);
    }

    void report(
            Pass pass,
            int number,
            double objective,
            int nsplit,
            Clock::time_point start,
            std::vector<PassReport>& reports) {
        PassReport r;
        r.redo = redo_;
        r.pass = pass;
        r.number = number;
        r.objective = objective;
        r.seconds = seconds_since(start);
        r.accumulate_seconds = accumulate_seconds_;
        r.imbalance = imbalance(stats_.members);
        r.entries_per_vector = stats_.n ? (double)stats_.entries / stats_.n : 0;
        r.dropped_mass = stats_.dropped_mass;
        r.nsplit = nsplit;
        reports.push_back(r);
        if (plan_.on_pass) {
            plan_.on_pass(r);
        }
    }

    void run_hard(
            TrainingSet& data,
            Clock::time_point start,
            std::vector<PassReport>& reports) {
        float previous = 0;
        for (int i = 0; i < plan_.hard_passes; i++) {
            accumulate(data, Pass::hard);
            update_centroids(stats_, n_frozen_, model);
            std::vector<float> sizes(
                    stats_.counts.begin(), stats_.counts.end());
            const int nsplit =
                    split_empty_clusters(stats_.n, n_frozen_, sizes, model);
            // halves of a split cluster share its weight in the mixture
            stats_.counts.assign(sizes.begin(), sizes.end());
            post_process(plan_, model);
            report(Pass::hard, i, stats_.objective, nsplit, start, reports);

            // in single precision, as FAISS compares its objectives
            const float objective = stats_.objective;
            const bool stop = i > 0 && previous != 0 &&
                    std::abs(previous - objective) / std::abs(previous) <=
                            plan_.early_stop_threshold;
            previous = objective;
            if (stop) {
                break;
            }
        }
        if (plan_.hard_passes == 0) {
            if (plan_.soft_passes == 0) {
                return; // the initial centroids are what was asked for
            }
            accumulate(data, Pass::hard);
        }
        mixture_from_clusters(stats_, model);
        const bool lower_is_better = plan_.metric == Metric::l2;
        score = lower_is_better ? -stats_.objective : stats_.objective;
    }

    void run_soft(
            TrainingSet& data,
            Clock::time_point start,
            std::vector<PassReport>& reports) {
        if (is_diagonal(plan_.covariance)) {
            model.make_diagonal();
        }
        std::vector<double> floor;
        bool comparable = false; // with the pass before: no re-seed between
        for (int i = 0; i < plan_.soft_passes; i++) {
            accumulate(data, Pass::soft);
            const double previous = score;
            score = stats_.log_likelihood / stats_.total_weight;
            if (i == 0) {
                floor = variance_floor(plan_, stats_, model);
            }
            update_mixture(plan_, stats_, n_frozen_, floor, model);
            const int nreseed =
                    reseed_components(plan_, stats_, n_frozen_, model);
            report(Pass::soft, i, score, nreseed, start, reports);
            if (comparable && score - previous < plan_.em_tolerance) {
                break;
            }
            comparable = nreseed == 0;
        }
    }

    const TrainingPlan& plan_;
    const int redo_;
    size_t n_given_;
    size_t n_frozen_;
    Statistics stats_;
    double accumulate_seconds_ = 0;
};

} // namespace

TrainingResult train(
        const TrainingPlan& plan,
        const Engine& engine,
        const VectorSource& source) {
    const auto start = Clock::now();
    const std::unique_ptr<TrainingSet> data =
            engine.open(source, plan.engine_options);

    TrainingResult kept;
    double kept_score = 0;
    std::vector<PassReport> reports;
    std::vector<float> given = plan.given;
    for (int redo = 0; redo < plan.nredo; redo++) {
        Attempt attempt(plan, source, given, redo);
        attempt.run(*data, start, reports);
        // FAISS: the next attempt goes on from what became of them
        const std::vector<float>& means = attempt.model.means;
        given.assign(means.begin(), means.begin() + given.size());
        if (redo == 0 || attempt.score > kept_score) {
            kept_score = attempt.score;
            kept.model = std::move(attempt.model);
            kept.passes = reports;
        }
    }
    return kept;
}

} // namespace faiss_flash
