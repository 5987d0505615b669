// The training loop on its own and shared between participants.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include <faiss_flash/engine/engine.h>
#include <faiss_flash/trainer/trainer.h>
#include <tests/core_util.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::Engine;
using faiss_flash::EngineOptions;
using faiss_flash::get_engine;
using faiss_flash::idx_t;
using faiss_flash::Model;
using faiss_flash::Pass;
using faiss_flash::PassReport;
using faiss_flash::Statistics;
using faiss_flash::TrainingPlan;
using faiss_flash::TrainingResult;
using faiss_flash::TrainingSet;
using faiss_flash::VectorSource;

namespace {

TrainingPlan plan_of(
        const Rows& rows,
        size_t k,
        int hard_passes,
        int soft_passes) {
    TrainingPlan plan;
    plan.k = k;
    plan.hard_passes = hard_passes;
    plan.soft_passes = soft_passes;
    plan.given.assign(rows.x.begin(), rows.x.begin() + k * rows.d);
    plan.variance_floor = 1e-3;
    plan.min_weight = 1e-3;
    return plan;
}

/// Adds up the statistics of several threads, each of which calls reduce()
/// once per pass and gets the sum.
class Reduction {
   public:
    explicit Reduction(int participants) : participants_(participants) {}

    void reduce(int rank, Statistics& stats) {
        std::unique_lock<std::mutex> lock(mutex_);
        parts_.resize(participants_);
        parts_[rank] = stats;
        const int round = round_;
        if (++arrived_ == participants_) {
            sum_ = parts_[0];
            for (int r = 1; r < participants_; r++) {
                sum_.add(parts_[r]);
            }
            arrived_ = 0;
            round_++;
            all_there_.notify_all();
        } else {
            all_there_.wait(lock, [&] { return round_ != round; });
        }
        stats = sum_;
    }
    int rounds() const {
        return round_;
    }

   private:
    const int participants_;
    int arrived_ = 0, round_ = 0;
    std::mutex mutex_;
    std::condition_variable all_there_;
    std::vector<Statistics> parts_;
    Statistics sum_;
};

/// Trains on parts of the rows, one thread each.
std::vector<TrainingResult> train_in_parts(
        const TrainingPlan& plan,
        const Rows& rows,
        const std::vector<float>& weights,
        const std::vector<size_t>& bounds,
        int* rounds = nullptr) {
    const int participants = int(bounds.size()) - 1;
    Reduction reduction(participants);
    std::vector<TrainingResult> results(participants);
    std::vector<std::thread> threads;
    threads.reserve(participants);
    for (int rank = 0; rank < participants; rank++) {
        threads.emplace_back([&, rank] {
            const size_t i0 = bounds[rank];
            const auto source = array_source(
                    bounds[rank + 1] - i0,
                    rows.d,
                    rows.row(i0),
                    weights.empty() ? nullptr : weights.data() + i0);
            TrainingPlan mine = plan;
            mine.all_reduce = [&, rank](Statistics& stats) {
                reduction.reduce(rank, stats);
            };
            results[rank] = train(mine, get_engine(), *source);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    if (rounds) {
        *rounds = reduction.rounds();
    }
    return results;
}

void check_close(const Model& a, const Model& b) {
    Worst mean, variance, weight;
    for (size_t j = 0; j < a.means.size(); j++) {
        mean.see(std::abs(a.means[j] - b.means[j]), 1e-4, j);
    }
    for (size_t c = 0; c < a.k; c++) {
        variance.see(relative_gap(a.variances[c], b.variances[c]), 1e-4, c);
        weight.see(std::abs(a.weights[c] - b.weights[c]), 1e-5, c);
    }
    CHECK_WORST(mean);
    CHECK_WORST(variance);
    CHECK_WORST(weight);
}

bool same_model(const Model& a, const Model& b) {
    return same_bytes(a.means, b.means) &&
            same_bytes(a.variances, b.variances) &&
            same_bytes(a.weights, b.weights);
}

} // namespace

TEST_CASE(
        "participants with parts of the data train the same model",
        "[per_engine][sanitize]") {
    const Rows rows = blob_rows(600, 5, 7, 2, 11);
    for (const bool weighted : {false, true}) {
        const std::vector<float> weights =
                weighted ? random_weights(rows.n, 12) : std::vector<float>();
        for (const int soft_passes : {0, 6}) {
            TrainingPlan plan = plan_of(rows, 7, 5, soft_passes);
            // an empty cluster and an empty component are treated alike
            std::fill_n(plan.given.begin() + 10, 5, 1e4f);
            const auto source = array_source(
                    rows.n,
                    rows.d,
                    rows.x.data(),
                    weighted ? weights.data() : nullptr);
            const TrainingResult whole = train(plan, get_engine(), *source);
            for (const std::vector<size_t>& bounds :
                 {std::vector<size_t>{0, 300, 600},
                  std::vector<size_t>{0, 1, 250, 600}}) {
                int rounds = 0;
                const auto parts =
                        train_in_parts(plan, rows, weights, bounds, &rounds);
                CHECK(rounds == (int)whole.passes.size());
                for (const TrainingResult& part : parts) {
                    // all hold the same sums: the same bytes
                    CHECK(same_model(part.model, parts[0].model));
                    check_close(part.model, whole.model);
                    REQUIRE(part.passes.size() == whole.passes.size());
                    for (size_t i = 0; i < whole.passes.size(); i++) {
                        const PassReport& a = part.passes[i];
                        const PassReport& b = whole.passes[i];
                        CHECK(relative_gap(a.objective, b.objective) <= 1e-5);
                        CHECK(relative_gap(a.imbalance, b.imbalance) <= 1e-2);
                        CHECK(a.nsplit == b.nsplit);
                        CHECK(a.dropped_mass <= 1e-6);
                    }
                }
            }
        }
    }
}

TEST_CASE("one participant alone is as if there were no reduction") {
    const Rows rows = blob_rows(300, 4, 5, 2, 21);
    const TrainingPlan plan = plan_of(rows, 5, 3, 3);
    const auto source = array_source(rows.n, rows.d, rows.x.data(), nullptr);
    const TrainingResult whole = train(plan, get_engine(), *source);
    const auto parts = train_in_parts(plan, rows, {}, {0, rows.n});
    CHECK(same_model(parts[0].model, whole.model));
}

TEST_CASE("every pass is reported, in order and with its time") {
    const Rows rows = blob_rows(300, 4, 5, 2, 31);
    const auto source = array_source(rows.n, rows.d, rows.x.data(), nullptr);
    TrainingPlan plan = plan_of(rows, 5, 3, 4);
    plan.given.clear();
    plan.nredo = 2;
    std::vector<PassReport> seen;
    plan.on_pass = [&](const PassReport& report) { seen.push_back(report); };
    const TrainingResult result = train(plan, get_engine(), *source);
    REQUIRE(seen.size() == 14);
    REQUIRE((result.passes.size() == 7 || result.passes.size() == 14));
    for (size_t i = 0; i < seen.size(); i++) {
        CHECK(seen[i].redo == int(i / 7));
        const int in_attempt = i % 7;
        CHECK((seen[i].pass == Pass::hard) == (in_attempt < 3));
        CHECK(seen[i].number == (in_attempt < 3 ? in_attempt : in_attempt - 3));
        CHECK(seen[i].accumulate_seconds >= 0);
        CHECK(seen[i].accumulate_seconds <= seen[i].seconds);
        CHECK((i == 0 || seen[i].seconds >= seen[i - 1].seconds));
        CHECK(seen[i].imbalance >= 1);
        if (i < result.passes.size()) {
            CHECK(seen[i].objective == result.passes[i].objective);
        }
    }
    // the attempt that was kept has the larger log-likelihood
    const bool second = seen[13].objective > seen[6].objective;
    CHECK(result.passes.size() == (second ? 14 : 7));
}

TEST_CASE("an exception out of a report or a reduction ends training") {
    const Rows rows = blob_rows(300, 4, 5, 2, 41);
    const auto source = array_source(rows.n, rows.d, rows.x.data(), nullptr);
    TrainingPlan plan = plan_of(rows, 5, 3, 4);
    int passes = 0;
    plan.on_pass = [&](const PassReport&) {
        if (++passes == 2) {
            throw std::runtime_error("enough");
        }
    };
    CHECK_THROWS_WITH(train(plan, get_engine(), *source), "enough");
    CHECK(passes == 2);
    plan.on_pass = nullptr;
    plan.all_reduce = [](Statistics&) {
        throw std::runtime_error("lost the others");
    };
    CHECK_THROWS_WITH(train(plan, get_engine(), *source), "lost the others");
}

namespace {

/// An engine with no arithmetic: gives out statistics made for a test.
class ScriptedEngine : public Engine {
   public:
    using Script = std::function<void(const Model&, Pass, int, Statistics&)>;
    explicit ScriptedEngine(Script script) : script_(std::move(script)) {}

    const char* name() const override {
        return "scripted";
    }
    std::unique_ptr<TrainingSet> open(const VectorSource&, const EngineOptions&)
            const override {
        struct Set : TrainingSet {
            Script script;
            int pass = 0;
            void accumulate(const Model& m, Pass p, Statistics& out) override {
                out.reset(m.k, m.d);
                script(m, p, pass++, out);
            }
        };
        auto set = std::make_unique<Set>();
        set->script = script_;
        return set;
    }
    void nearest(const Model&, size_t, const float*, size_t, idx_t*, float*)
            const override {
        FAIL("training ranks nothing");
    }
    void responsibilities(
            const Model&,
            size_t,
            const float*,
            size_t,
            idx_t*,
            float*,
            float*) const override {
        FAIL("training ranks nothing");
    }

   private:
    Script script_;
};

/// Ten vectors of weight 1 in each cluster, at the centroids.
void even_statistics(const Model& m, Statistics& out) {
    for (size_t c = 0; c < m.k; c++) {
        out.counts[c] = 10;
        out.members[c] = 10;
        out.energy[c] = 10;
        for (size_t j = 0; j < m.d; j++) {
            out.sums[c * m.d + j] = 10 * m.means[c * m.d + j];
        }
    }
    out.n = 10 * m.k;
    out.total_weight = double(out.n);
    out.entries = out.n;
}

} // namespace

TEST_CASE("hard passes stop where the objective changes too little") {
    const Rows rows = normal_rows(50, 2, 51);
    const auto source = array_source(50, 2, rows.x.data(), nullptr);
    // halves, then falls by a hundredth, then stays
    const double objectives[] = {800, 400, 396, 396, 396, 396};
    const ScriptedEngine engine(
            [&](const Model& m, Pass, int pass, Statistics& out) {
                even_statistics(m, out);
                out.objective = objectives[pass];
            });
    const auto passes = [&](double threshold) {
        TrainingPlan plan = plan_of(rows, 3, 6, 0);
        plan.early_stop_threshold = threshold;
        return train(plan, engine, *source).passes.size();
    };
    CHECK(passes(-1) == 6);
    CHECK(passes(0) == 4);
    CHECK(passes(0.009) == 4);
    CHECK(passes(0.011) == 3);
    CHECK(passes(0.6) == 2);
}

TEST_CASE("soft passes stop by gain, but not across a re-seed") {
    const Rows rows = normal_rows(50, 2, 61);
    const auto source = array_source(50, 2, rows.x.data(), nullptr);
    // the third pass leaves a component empty: what follows is not compared
    const double likelihoods[] = {-9, -7, -6, -8, -5.5, -5.45, -1};
    const ScriptedEngine engine(
            [&](const Model& m, Pass kind, int pass, Statistics& out) {
                even_statistics(m, out);
                if (kind == Pass::soft) {
                    out.log_likelihood =
                            likelihoods[pass - 1] * out.total_weight;
                    if (pass - 1 == 2) {
                        out.counts[1] = 0;
                    }
                }
            });
    TrainingPlan plan = plan_of(rows, 3, 1, 7);
    plan.em_tolerance = 0.1;
    const TrainingResult result = train(plan, engine, *source);
    REQUIRE(result.passes.size() == 7); // one hard, six soft
    CHECK(result.passes[3].nsplit == 1);
    CHECK(relative_gap(result.passes[6].objective, -5.45) <= 1e-12);
}

TEST_CASE("an engine is asked for statistics and for nothing else") {
    const Rows rows = normal_rows(50, 2, 71);
    const auto source = array_source(50, 2, rows.x.data(), nullptr);
    std::vector<Pass> asked;
    const ScriptedEngine engine(
            [&](const Model& m, Pass kind, int, Statistics& out) {
                asked.push_back(kind);
                CHECK(m.is_mixture() == (kind == Pass::soft));
                even_statistics(m, out);
            });
    train(plan_of(rows, 3, 0, 0), engine, *source);
    CHECK(asked.empty());
    train(plan_of(rows, 3, 2, 0), engine, *source);
    CHECK(asked == std::vector<Pass>{Pass::hard, Pass::hard});
    asked.clear();
    // without a warm start one hard pass gives variances and weights
    TrainingPlan plan = plan_of(rows, 3, 0, 1);
    const TrainingResult result = train(plan, engine, *source);
    CHECK(asked == std::vector<Pass>{Pass::hard, Pass::soft});
    CHECK(result.passes.size() == 1);
}

TEST_CASE("statistics of parts add up to those of the whole", "[per_engine]") {
    const Rows rows = blob_rows(500, 6, 4, 2, 81);
    const std::vector<float> weights = random_weights(rows.n, 82);
    const TrainingPlan plan = plan_of(rows, 9, 1, 1);
    const auto all = array_source(500, 6, rows.x.data(), weights.data());
    const Model model = train(plan, get_engine(), *all).model;
    for (const Pass pass : {Pass::hard, Pass::soft}) {
        Statistics whole, first, second;
        get_engine().open(*all)->accumulate(model, pass, whole);
        const auto head = array_source(123, 6, rows.x.data(), weights.data());
        const auto tail =
                array_source(377, 6, rows.row(123), weights.data() + 123);
        get_engine().open(*head)->accumulate(model, pass, first);
        get_engine().open(*tail)->accumulate(model, pass, second);
        // engines compute in single precision what they then add up; one that
        // works in blocks cuts the whole elsewhere than the parts
        const double rounding = 1e-6;
        const double dropped =
                std::max(first.dropped_mass, second.dropped_mass);
        first.add(second);
        CHECK(first.n == whole.n);
        CHECK(first.entries == whole.entries);
        CHECK(first.members == whole.members);
        CHECK(first.dropped_mass == dropped);
        CHECK(first.dropped_mass == whole.dropped_mass);
        CHECK(relative_gap(first.total_weight, whole.total_weight) < 1e-12);
        CHECK(relative_gap(first.objective, whole.objective) < rounding);
        CHECK(relative_gap(first.log_likelihood, whole.log_likelihood) <
              rounding);
        for (size_t c = 0; c < 9; c++) {
            CHECK(relative_gap(first.counts[c], whole.counts[c]) < rounding);
            CHECK(relative_gap(first.energy[c], whole.energy[c]) < rounding);
        }
        for (size_t j = 0; j < whole.sums.size(); j++) {
            CHECK(std::abs(first.sums[j] - whole.sums[j]) < rounding * 100);
        }
    }
}

TEST_CASE("training puts back what is global") {
    const Rows rows = blob_rows(300, 4, 5, 2, 121);
    const auto source = array_source(rows.n, rows.d, rows.x.data(), nullptr);
    Threads scope(3);
    std::srand(77);
    const int first = std::rand();
    std::srand(77);
    TrainingPlan plan = plan_of(rows, 5, 3, 3);
    plan.given.clear();
    train(plan, get_engine(), *source);
    CHECK(std::rand() == first);
    CHECK(omp_get_max_threads() == 3);
}
