// The training loop, its model updates and sources, on their own and shared
// between participants.

#include <faiss/IndexScalarQuantizer.h>
#include <faiss/utils/random.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>

#include <faiss_flash/engine/engine.h>
#include <faiss_flash/trainer/trainer.h>
#include <faiss_flash/trainer/update.h>
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
        const double dropped =
                std::max(first.dropped_mass, second.dropped_mass);
        first.add(second);
        CHECK(first.n == whole.n);
        CHECK(first.entries == whole.entries);
        CHECK(first.members == whole.members);
        CHECK(first.dropped_mass == dropped);
        CHECK(first.dropped_mass == whole.dropped_mass);
        CHECK(relative_gap(first.total_weight, whole.total_weight) < 1e-12);
        CHECK(relative_gap(first.objective, whole.objective) < 1e-12);
        CHECK(relative_gap(first.log_likelihood, whole.log_likelihood) < 1e-12);
        for (size_t c = 0; c < 9; c++) {
            CHECK(relative_gap(first.counts[c], whole.counts[c]) < 1e-12);
            CHECK(relative_gap(first.energy[c], whole.energy[c]) < 1e-12);
        }
        for (size_t j = 0; j < whole.sums.size(); j++) {
            CHECK(std::abs(first.sums[j] - whole.sums[j]) < 1e-9);
        }
    }
}

TEST_CASE("splits take half of a cluster and move the halves apart") {
    std::mt19937 random(91);
    for (int trial = 0; trial < 200; trial++) {
        const size_t k = 2 + random() % 20, d = 1 + random() % 5;
        const size_t frozen = random() % k;
        Model model;
        model.k = k;
        model.d = d;
        model.means = normal_rows(k, d, 92 + trial, 5, 3).x;
        std::vector<float> sizes(k);
        int empty = 0;
        double total = 0;
        for (size_t c = 0; c < k; c++) {
            sizes[c] = random() % 3 == 0 ? 0 : float(1 + random() % 50);
            if (trial % 5 == 0) {
                sizes[c] *= 0.001f; // FAISS would never end
            }
            empty += c >= frozen && sizes[c] == 0;
            total += c >= frozen ? sizes[c] : 0;
        }
        const Model before = model;
        const std::vector<float> sizes_before = sizes;
        const int nsplit =
                faiss_flash::split_empty_clusters(1000, frozen, sizes, model);
        CHECK(nsplit == empty);
        double total_after = 0;
        for (size_t c = 0; c < k; c++) {
            if (c < frozen) {
                CHECK(sizes[c] == sizes_before[c]);
                CHECK(std::equal(
                        model.means.begin() + c * d,
                        model.means.begin() + (c + 1) * d,
                        before.means.begin() + c * d));
                continue;
            }
            total_after += sizes[c];
            if (total > 0) {
                CHECK(sizes[c] > 0);
            }
            if (sizes_before[c] == 0 && total > 0) {
                // somebody else's place, a thousandth or so away each time
                double nearest = HUGE_VAL;
                for (size_t other = frozen; other < k; other++) {
                    double worst = 0;
                    for (size_t j = 0; j < d; j++) {
                        worst = std::max(
                                worst,
                                relative_gap(
                                        model.means[c * d + j],
                                        before.means[other * d + j]));
                    }
                    nearest = std::min(
                            nearest,
                            sizes_before[other] > 0 ? worst : HUGE_VAL);
                }
                CHECK(nearest <= (empty + 1) / 1000.0);
                CHECK(nearest > 0);
            }
        }
        CHECK(relative_gap(total_after, total) <= 1e-6);
    }
}

TEST_CASE("a split that would take FAISS hours ends") {
    // sizes just above 1 among a thousand million vectors
    Model model;
    model.k = 1000;
    model.d = 1;
    model.means = normal_rows(1000, 1, 95).x;
    std::vector<float> sizes(1000, 1.0000002f);
    std::fill_n(sizes.begin(), 100, 0.0f);
    const int nsplit =
            faiss_flash::split_empty_clusters(1000000000, 0, sizes, model);
    CHECK(nsplit == 100);
    CHECK(*std::min_element(sizes.begin(), sizes.end()) > 0);
}

TEST_CASE("the M-step gives means, variances and weights of its sums") {
    // statistics made here around one set of means, updated to another
    const Rows rows = normal_rows(80, 4, 101, 1, 1e3);
    const size_t k = 3, d = 4;
    Model model;
    model.k = k;
    model.d = d;
    model.means = normal_rows(k, d, 102, 5, 1e3).x;
    model.variances.assign(k, 1);
    model.weights.assign(k, 1.0f / k);
    std::mt19937 random(103);
    std::uniform_real_distribution<double> uniform;
    std::vector<double> r(rows.n * k);
    Statistics stats;
    stats.reset(k, d);
    for (size_t i = 0; i < rows.n; i++) {
        for (size_t c = 0; c < k; c++) {
            const double share = r[i * k + c] = uniform(random);
            stats.counts[c] += share;
            for (size_t j = 0; j < d; j++) {
                const double x = rows.row(i)[j];
                const double diff = x - model.means[c * d + j];
                stats.sums[c * d + j] += share * x;
                stats.energy[c] += share * diff * diff;
            }
        }
    }
    TrainingPlan plan;
    for (const int what : {0, 1, 2, 3, 4}) {
        plan.shared_variance = what == 1;
        plan.int_centroids = what == 2;
        const size_t frozen = what == 3 ? 2 : 0;
        const double floor = what == 4 ? 1e6 : 1e-9;
        const Model before = model;
        Model after = model;
        faiss_flash::update_mixture(plan, stats, frozen, floor, after);
        std::vector<double> energy(k);
        double all = 0, total = 0;
        for (size_t c = 0; c < k; c++) {
            for (size_t j = 0; j < d; j++) {
                double mean = stats.sums[c * d + j] / stats.counts[c];
                mean = what == 2 ? std::round(mean) : mean;
                if (c < frozen) {
                    mean = before.means[c * d + j];
                }
                CHECK(relative_gap(after.means[c * d + j], mean) <= 1e-7);
                for (size_t i = 0; i < rows.n; i++) {
                    // around the mean as it is stored
                    energy[c] += r[i * k + c] *
                            std::pow(rows.row(i)[j] - after.means[c * d + j],
                                     2);
                }
            }
            all += energy[c];
            total += stats.counts[c];
        }
        for (size_t c = 0; c < k; c++) {
            double variance = what == 1 ? all / (d * total)
                                        : energy[c] / (d * stats.counts[c]);
            variance = std::max(variance, floor);
            CHECK(relative_gap(after.variances[c], variance) <= 1e-6);
            CHECK(relative_gap(after.weights[c], stats.counts[c] / total) <=
                  1e-6);
        }
    }
}

TEST_CASE("components are re-seeded beside the one with most to explain") {
    Model model;
    model.k = 4;
    model.d = 3;
    model.means = {0, 0, 0, 10, 10, 10, 20, 20, 20, 1000, 1000, 1000};
    model.variances = {1, 4, 9, 1};
    model.weights = {0.3f, 0.3f, 0.4f, 0};
    Statistics stats;
    stats.reset(4, 3);
    stats.counts = {30, 30, 40, 0};
    stats.energy = {90, 360, 300, 0};
    TrainingPlan plan;
    plan.min_weight = 0.01;
    Model after = model;
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 1);
    for (size_t j = 0; j < 3; j++) {
        // a tenth of the standard deviation 2 to either side
        const float a = after.means[3 + j], b = after.means[9 + j];
        CHECK(a + b == 20);
        CHECK(relative_gap(std::abs(a - b), 0.4) <= 1e-5);
        CHECK(after.means[j] == 0);
    }
    CHECK(after.variances[3] == 4);
    CHECK(after.weights[3] == after.weights[1]);
    CHECK(after.weights[3] == 0.15f);
    CHECK(relative_gap(
                  std::accumulate(
                          after.weights.begin(), after.weights.end(), 0.0),
                  1) <= 1e-6);

    plan.min_weight = 0; // never
    after = model;
    CHECK(faiss_flash::reseed_components(plan, stats, 0, after) == 0);
    CHECK(same_model(after, model));
    plan.min_weight = 0.01; // all frozen
    CHECK(faiss_flash::reseed_components(plan, stats, 4, after) == 0);
    CHECK(same_model(after, model));
}

namespace {

/// Rows of a source in ranges of `step`, with their weights (1 if none).
std::pair<std::vector<float>, std::vector<float>> read_all(
        const VectorSource& source,
        size_t step) {
    std::vector<float> x, w, x_buffer, w_buffer;
    for (size_t i0 = 0; i0 < source.n(); i0 += step) {
        const size_t count = std::min(step, source.n() - i0);
        const float* rows = source.rows(i0, count, x_buffer);
        x.insert(x.end(), rows, rows + count * source.d());
        const float* weights = source.weights(i0, count, w_buffer);
        for (size_t i = 0; i < count; i++) {
            w.push_back(weights ? weights[i] : 1);
        }
    }
    return {x, w};
}

} // namespace

TEST_CASE("sources give the same rows in ranges of any size", "[sanitize]") {
    const Rows rows = normal_rows(101, 7, 111);
    const std::vector<float> weights = random_weights(101, 112);
    faiss::IndexScalarQuantizer codec(7, faiss::ScalarQuantizer::QT_8bit);
    codec.train(rows.n, rows.x.data());
    std::vector<uint8_t> codes(rows.n * codec.sa_code_size());
    codec.sa_encode(rows.n, rows.x.data(), codes.data());
    std::vector<float> decoded(rows.x.size());
    codec.sa_decode(rows.n, codes.data(), decoded.data());
    std::vector<int64_t> chosen = {100, 0, 5, 5, 77, 3, 99, 0};

    for (const float* w : {(const float*)nullptr, weights.data()}) {
        const auto check = [&](const VectorSource& source,
                               const std::vector<float>& x,
                               const std::vector<int64_t>& numbers) {
            REQUIRE(source.n() == numbers.size());
            CHECK(source.d() == 7);
            std::vector<float> expected_x, expected_w;
            for (const int64_t i : numbers) {
                expected_x.insert(
                        expected_x.end(),
                        x.begin() + i * 7,
                        x.begin() + (i + 1) * 7);
                expected_w.push_back(w ? w[i] : 1);
            }
            for (const size_t step : {1, 2, 3, 10, 1000}) {
                const auto found = read_all(source, step);
                CHECK(same_bytes(found.first, expected_x));
                CHECK(same_bytes(found.second, expected_w));
            }
            std::vector<float> buffer;
            CHECK((source.weights(0, 1, buffer) == nullptr) == (w == nullptr));
        };
        std::vector<int64_t> every(rows.n);
        std::iota(every.begin(), every.end(), 0);
        const auto array = [&] {
            return array_source(rows.n, 7, rows.x.data(), w);
        };
        check(*array(), rows.x, every);
        check(*faiss_flash::subset_source(array(), chosen), rows.x, chosen);
        for (const size_t block : {1, 4, 100, 101, 5000}) {
            const auto coded = [&] {
                return faiss_flash::codec_source(
                        rows.n, codec, codes.data(), block, w);
            };
            check(*coded(), decoded, every);
            check(*faiss_flash::subset_source(coded(), chosen),
                  decoded,
                  chosen);
        }
    }
    // vectors in memory are not copied
    std::vector<float> buffer;
    CHECK(array_source(rows.n, 7, rows.x.data(), nullptr)->rows(3, 5, buffer) ==
          rows.row(3));
    CHECK(buffer.empty());
}

TEST_CASE("the density of a model is what its formula says") {
    Model model;
    model.k = 3;
    model.d = 6;
    model.variances = {0.25f, 1, 1e-12f};
    model.weights = {0.5f, 0.5f, 0};
    const std::vector<double> scales = faiss_flash::log_scales(model);
    const double pi = std::acos(-1.0);
    CHECK(relative_gap(
                  scales[0], std::log(0.5) - 3 * std::log(2 * pi * 0.25)) <=
          1e-12);
    CHECK(relative_gap(scales[1], std::log(0.5) - 3 * std::log(2 * pi)) <=
          1e-12);
    CHECK(scales[2] == -HUGE_VAL); // no weight: never chosen
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
