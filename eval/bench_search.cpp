// flash_bench_search: what searching costs, beside stock FAISS in the same
// run.
//
//   flash_bench_search --dataset FILE [--out FILE.json]
//
// Three comparisons. `stock copy`: two equal stock indexes, which shows what
// chance and the place in memory do. `nearest`: the stock class and ours with
// the same centroids and lists, at the same nprobe. `TRAINER+POLICY`: stock
// FAISS with its own centroids and ours with two lists per vector, each at the
// smallest nprobe that reaches the recall asked for.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <datasets/error_line.h>
#include <eval/built_index.h>
#include <eval/cli_checks.h>
#include <eval/run_info.h>
#include <eval/search_pair.h>
#include <eval/task.h>
#include <faiss_flash/version.h>

using namespace faiss_flash;
using nlohmann::ordered_json;

namespace {

struct Options {
    Arguments data; ///< what load_task() reads
    std::string out;
    size_t nlist = 0;
    std::vector<std::string> codecs = {"flat", "sq8", "pq32"};
    std::vector<std::string> methods = {"gmm+responsibility", "gmm+air"};
    std::vector<size_t> batches = {1, 32, 1000};
    std::vector<int> threads = {1, 2};
    double recall = 0.95;
    size_t nearest_nprobe = 16;
    int repetitions = 6;
    size_t timed_queries = 300;
    TrainingOptions training;
    PolicyOptions policy;
};

void add_options(CLI::App& app, Options& o) {
    const CLI::Validator positive = at_least(1);
    app.add_option(
               "--dataset",
               o.data.dataset,
               "file with vectors and queries, as for flash_eval (default: "
               "the bundled sample)")
            ->capture_default_str();
    app.add_option("--rows", o.data.rows, "use the first ROWS base vectors")
            ->check(positive);
    app.add_option("--queries", o.data.queries, "use the first QUERIES queries")
            ->check(positive);
    app.add_option(
            "--out", o.out, "add the results to the runs in this JSON file");
    app.add_option(
               "--nlist",
               o.nlist,
               "posting lists (default: the power of two nearest to sqrt(n))")
            ->check(positive);
    app.add_option("--codec", o.codecs, "flat, sq8, pqM")
            ->delimiter(',')
            ->capture_default_str();
    app.add_option(
               "--methods",
               o.methods,
               "what is compared with stock FAISS at equal recall")
            ->delimiter(',')
            ->capture_default_str();
    app.add_option("--batch", o.batches, "queries per call")
            ->delimiter(',')
            ->check(positive)
            ->capture_default_str();
    app.add_option("--threads", o.threads, "OpenMP threads")
            ->delimiter(',')
            ->check(in_bounds(1, 4096))
            ->capture_default_str();
    app.add_option("--recall", o.recall, "recall@10 to reach")
            ->check(in_bounds(0.01, 1))
            ->capture_default_str();
    app.add_option(
               "--nearest-nprobe",
               o.nearest_nprobe,
               "lists per query in the comparison `nearest`")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--repetitions", o.repetitions, "of each timing")
            ->check(in_bounds(1, 1000))
            ->capture_default_str();
    app.add_option(
               "--timed-queries",
               o.timed_queries,
               "time the first so many queries, or a whole batch; recall is "
               "that of all queries")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--em-niter", o.training.em_niter, "most EM passes of gmm")
            ->check(in_bounds(0, 1000000))
            ->capture_default_str();
    app.add_option(
               "--max-points-per-centroid",
               o.training.max_points_per_centroid,
               "training vectors per list")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--seed", o.training.seed, "of the trainings")
            ->capture_default_str();
    app.set_version_flag("--version", version_line());
}

class Bench {
   public:
    Bench(const Options& options, const LoadedTask& loaded)
            : o_(options),
              task_(loaded.task) {
        stock_.stock = true;
        stock_centroids_ = train(stock_);
        for (const Method& method : parse_methods(o_.methods)) {
            // policies share what their trainer learns
            if (centroids_.count(method.trainer_name()) == 0) {
                centroids_[method.trainer_name()] = train(method);
            }
        }
    }

    ordered_json run() {
        for (const std::string& name : o_.codecs) {
            const Codec codec = parse_codec(name, 0);
            BuiltIndex stock = build(stock_, codec, stock_centroids_);
            copy_ = build(stock_, codec, stock_centroids_);
            compare_copy(codec, stock);
            compare_nearest(codec, stock);
            omp_set_num_threads(omp_get_num_procs());
            const Operating at = reach_recall(task_, *stock.ivf, o_.recall);
            for (const Method& method : parse_methods(o_.methods)) {
                compare_at_recall(codec, stock, at, method);
            }
        }
        return results_;
    }

   private:
    TrainedQuantizer train(const Method& method) {
        return train_quantizer(
                method, o_.training, task_.n, task_.d, task_.base.data());
    }

    BuiltIndex build(
            const Method& method,
            const Codec& codec,
            TrainedQuantizer& trained) {
        return build_index(
                method,
                make_policy(method.rule, o_.policy),
                codec,
                o_.training,
                trained,
                task_.n,
                task_.d,
                task_.base.data());
    }

    /// Stock FAISS with itself: what the place in memory and chance do.
    void compare_copy(const Codec& codec, BuiltIndex& stock) {
        set_nearest_nprobe(stock, copy_);
        time_one(
                start_row("stock copy", codec, copy_),
                {stock.ivf.get()},
                copy_,
                o_.threads.front(),
                o_.batches.back());
    }

    size_t set_nearest_nprobe(const BuiltIndex& a, const BuiltIndex& b) const {
        return a.ivf->nprobe = b.ivf->nprobe =
                       std::min(o_.nearest_nprobe, o_.training.nlist);
    }

    void compare_nearest(const Codec& codec, BuiltIndex& stock) {
        Method method; // the trainer is not asked: centroids are stock's
        method.rule = AssignmentRule::nearest;
        BuiltIndex flash = build(method, codec, stock_centroids_);
        const size_t nprobe = set_nearest_nprobe(stock, flash);
        ordered_json row = start_row("nearest", codec, flash);
        row["nprobe"] = nprobe;
        time_all(row, stock, flash);
    }

    void compare_at_recall(
            const Codec& codec,
            BuiltIndex& stock,
            const Operating& stock_at,
            const Method& method) {
        BuiltIndex flash =
                build(method, codec, centroids_.at(method.trainer_name()));
        const Operating flash_at = reach_recall(task_, *flash.ivf, o_.recall);
        if (stock_at.nprobe == 0 || flash_at.nprobe == 0) {
            std::printf(
                    "%-20s %-6s recall %g is not reached\n",
                    method.name().c_str(),
                    codec.name.c_str(),
                    o_.recall);
            return;
        }
        stock.ivf->nprobe = stock_at.nprobe;
        ordered_json row = start_row(method.name(), codec, flash);
        row["stock_nprobe"] = stock_at.nprobe;
        row["stock_recall"] = stock_at.recall;
        row["flash_nprobe"] = flash_at.nprobe;
        row["flash_recall"] = flash_at.recall;
        time_all(row, stock, flash);
        interpolate(stock, stock_at, flash, flash_at);
    }

    ordered_json start_row(
            const std::string& comparison,
            const Codec& codec,
            const BuiltIndex& flash) const {
        ordered_json row;
        row["comparison"] = comparison;
        row["codec"] = codec.name;
        row["copies"] = flash.copies;
        return row;
    }

    void time_all(
            const ordered_json& head,
            const BuiltIndex& stock,
            const BuiltIndex& flash) {
        copy_.ivf->nprobe = stock.ivf->nprobe;
        for (const int threads : o_.threads) {
            for (const size_t batch : o_.batches) {
                time_one(
                        head,
                        {stock.ivf.get(), copy_.ivf.get()},
                        flash,
                        threads,
                        batch);
            }
        }
    }

    /// What the ratios of the comparison just made would be if both indexes
    /// met the recall exactly: also timed with one list less, the logarithm
    /// of the time being linear in recall.
    void interpolate(
            const BuiltIndex& stock,
            const Operating& stock_at,
            const BuiltIndex& flash,
            const Operating& flash_at) {
        if (stock_at.nprobe == 1 || flash_at.nprobe == 1) {
            return;
        }
        const auto share = [&](const Operating& at) {
            return (o_.recall - at.recall_before) /
                    (at.recall - at.recall_before);
        };
        const auto between = [](double before, double at, double share) {
            return std::exp(
                    (1 - share) * std::log(before) + share * std::log(at));
        };
        const size_t first =
                results_.size() - o_.threads.size() * o_.batches.size();
        stock.ivf->nprobe = stock_at.nprobe - 1;
        flash.ivf->nprobe = flash_at.nprobe - 1;
        ordered_json head;
        head["comparison"] = "one list less";
        head["codec"] = results_[first]["codec"];
        time_all(head, stock, flash);
        const size_t count = results_.size() - first;
        for (size_t i = first; i < first + count / 2; i++) {
            ordered_json& row = results_[i];
            const ordered_json& before = results_[i + count / 2];
            const auto cpu_at_recall = [&](const char* key,
                                           const Operating& at) {
                return between(
                        before[key].get<double>(),
                        row[key].get<double>(),
                        share(at));
            };
            const double cpu_ratio = cpu_at_recall("stock_cpu_us", stock_at) /
                    cpu_at_recall("flash_cpu_us", flash_at);
            row["cpu_ratio_at_recall"] = cpu_ratio;
            // wall-clock times compare only where they were taken together
            row["qps_ratio_at_recall"] = row["qps_ratio"].get<double>() *
                    cpu_ratio / row["cpu_ratio"].get<double>();
            std::printf(
                    "  at recall %g: ratio %.3f, by CPU time %.3f\n",
                    o_.recall,
                    row["qps_ratio_at_recall"].get<double>(),
                    row["cpu_ratio_at_recall"].get<double>());
        }
    }

    void time_one(
            ordered_json row,
            const std::vector<const faiss::IndexIVF*>& stocks,
            const BuiltIndex& flash,
            int threads,
            size_t batch) {
        omp_set_num_threads(threads);
        PairOptions pair;
        pair.batch = std::min(batch, task_.nq);
        pair.repetitions = o_.repetitions;
        pair.queries = std::max(batch, o_.timed_queries);
        const PairTimes times = time_pair(task_, stocks, *flash.ivf, pair);
        row["threads"] = threads;
        row["batch"] = pair.batch;
        row["stock_qps"] = 1 / times.stock.wall;
        row["flash_qps"] = 1 / times.flash.wall;
        row["qps_ratio"] = times.wall_ratio;
        row["qps_ratio_min"] = times.wall_ratio_min;
        row["qps_ratio_max"] = times.wall_ratio_max;
        row["stock_cpu_us"] = 1e6 * times.stock.cpu;
        row["flash_cpu_us"] = 1e6 * times.flash.cpu;
        row["cpu_ratio"] = times.cpu_ratio;
        print(row);
        results_.push_back(row);
    }

    static void print(const ordered_json& row) {
        std::printf(
                "%-20s %-6s threads %2d batch %5d: %8.0f against %8.0f qps, "
                "ratio %.3f (%.3f to %.3f), by CPU time %.3f\n",
                row["comparison"].get<std::string>().c_str(),
                row["codec"].get<std::string>().c_str(),
                row["threads"].get<int>(),
                row["batch"].get<int>(),
                row["flash_qps"].get<double>(),
                row["stock_qps"].get<double>(),
                row["qps_ratio"].get<double>(),
                row["qps_ratio_min"].get<double>(),
                row["qps_ratio_max"].get<double>(),
                row["cpu_ratio"].get<double>());
        std::fflush(stdout);
    }

    const Options& o_;
    const SearchTask& task_;
    Method stock_;
    TrainedQuantizer stock_centroids_;
    BuiltIndex copy_; ///< of the stock index, elsewhere in memory
    std::map<std::string, TrainedQuantizer> centroids_; ///< by trainer
    ordered_json results_ = ordered_json::array();
};

/// The words without the folders in them: what is kept should not depend on
/// where things lie.
std::string command_line(int argc, char** argv) {
    std::string text;
    for (int i = 0; i < argc; i++) {
        const std::string word = argv[i];
        const size_t slash = word.rfind('/');
        const size_t equals = word.find('=');
        const size_t from =
                equals < slash && slash != std::string::npos ? equals + 1 : 0;
        text += (i ? " " : "") + word.substr(0, from) +
                (slash == std::string::npos ? word.substr(from)
                                            : word.substr(slash + 1));
    }
    return text;
}

/// Of the last minute.
double load_average() {
    double load = 0;
    return getloadavg(&load, 1) == 1 ? load : -1;
}

/// The runs in a file written by add_run(), none if there is no such file.
ordered_json read_runs(const std::string& path) {
    std::ifstream file(path);
    if (path.empty() || !file) {
        // better now than after the measuring
        if (!path.empty() && !std::ofstream(path, std::ios::app)) {
            throw std::runtime_error("cannot write " + path);
        }
        return ordered_json::array();
    }
    if (file.peek() == std::ifstream::traits_type::eof()) {
        return ordered_json::array(); // of a run that was broken off
    }
    const ordered_json runs = ordered_json::parse(file, nullptr, false);
    if (!runs.is_array()) {
        throw std::invalid_argument(
                "--out " + path + ": not a file of earlier runs");
    }
    return runs;
}

void add_run(
        const std::string& path,
        ordered_json runs,
        const ordered_json& run) {
    runs.push_back(run);
    std::ofstream file(path);
    file << runs.dump(1) << '\n';
    if (!file.flush()) {
        throw std::runtime_error("cannot write " + path);
    }
}

int run(int argc, char** argv) {
    Options o;
    o.data.dataset = FAISS_FLASH_SAMPLE;
    CLI::App app{"What searching costs, beside stock FAISS in the same run."};
    add_options(app, o);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& done) {
        return app.exit(done);
    }
    for (const std::string& codec : o.codecs) {
        if (parse_codec(codec, 1).rerank > 0) {
            throw std::invalid_argument(
                    "--codec " + codec + ": re-ranking is not timed here");
        }
    }
    for (const Method& method : parse_methods(o.methods)) {
        if (method.stock) {
            throw std::invalid_argument(
                    "--methods faiss: it is what the others are compared with");
        }
    }
    const ordered_json runs = read_runs(o.out);
    const LoadedTask loaded = load_task(o.data);
    o.training.nlist = o.nlist ? o.nlist : automatic_nlist(loaded.task.n);
    if (o.training.nlist > loaded.task.n) {
        throw std::invalid_argument(
                "--nlist " + std::to_string(o.training.nlist) + ": " +
                loaded.name + " has " + std::to_string(loaded.task.n) +
                " vectors");
    }
    ordered_json info;
    info["command"] = command_line(argc, argv);
    info["dataset"] = loaded.name;
    info["n"] = loaded.task.n;
    info["d"] = loaded.task.d;
    info["queries"] = loaded.task.nq;
    info["nlist"] = o.training.nlist;
    info["recall"] = o.recall;
    info["repetitions"] = o.repetitions;
    info["started"] = utc_now();
    info["faiss_version"] = faiss_version();
    info["faiss_flash_version"] = version();
    info["commit"] = build_commit();
    const char* wait_policy = std::getenv("OMP_WAIT_POLICY");
    info["load_average"] = load_average();
    info["omp_wait_policy"] = wait_policy ? wait_policy : "default";
    info["machine"] = machine_info();
    info["results"] = Bench(o, loaded).run();
    info["ended"] = utc_now();
    if (!o.out.empty()) {
        add_run(o.out, runs, info);
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(
                stderr, "flash_bench_search: %s\n", error_line(error).c_str());
        return 2;
    }
}
