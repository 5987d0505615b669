// flash_bench: what training costs, beside stock FAISS in the same run.
//
//   flash_bench --dataset FILE [--benchmark_out=FILE]
//
// Three measurements: k-means against faiss::Clustering, an EM pass against a
// k-means pass, and the memory training takes beyond its input. The last one
// runs in a process of its own.

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <faiss/IndexFlat.h>
#include <CLI/CLI.hpp>

#include <datasets/error_line.h>
#include <datasets/progress.h>
#include <datasets/vector_file.h>
#include <eval/cli_checks.h>
#include <eval/median.h>
#include <eval/peak_memory.h>
#include <eval/run_info.h>
#include <eval/stopwatch.h>
#include <faiss_flash/GMMClustering.h>
#include <faiss_flash/engine/engine.h>
#include <faiss_flash/version.h>

using namespace faiss_flash;

namespace {

struct Options {
    std::string dataset, engine = "auto", covariance = "spherical";
    size_t n = 262144, k = 1024;
    int niter = 10;
    size_t memory_n = 1000000, memory_k = 4096;
    int repetitions = 5;
    int threads = 0;
    /// Internal: measure the memory of this trainer, print it, and end.
    std::string memory_of;
};

struct Vectors {
    size_t n = 0, d = 0;
    std::vector<float> x; ///< (n, d)
};

/// The first `wanted` rows, or all if there are fewer.
Vectors read_vectors(const std::string& dataset, size_t wanted) {
    const VectorFile file = open_vectors(dataset);
    Vectors vectors;
    vectors.n = std::min(wanted, file.n());
    vectors.d = file.d();
    vectors.x.resize(vectors.n * vectors.d);
    const size_t block = 16384;
    ProgressBar progress("reading", static_cast<double>(vectors.n));
    for (size_t i0 = 0; i0 < vectors.n; i0 += block) {
        const size_t count = std::min(block, vectors.n - i0);
        file.read(i0, count, vectors.x.data() + i0 * vectors.d);
        progress.update(static_cast<double>(i0 + count));
    }
    return vectors;
}

faiss::ClusteringParameters parameters(int niter) {
    faiss::ClusteringParameters cp;
    cp.niter = niter;
    cp.max_points_per_centroid = 1 << 30; // all rows that were read
    cp.min_points_per_centroid = 1;
    return cp;
}

struct Trained {
    double seconds = 0, objective = 0;
};

Trained train(faiss::Clustering& clustering, const Vectors& vectors) {
    faiss::IndexFlatL2 index(vectors.d);
    Stopwatch watch;
    clustering.train(vectors.n, vectors.x.data(), index);
    return {watch.seconds(), clustering.iteration_stats.back().obj};
}

Trained train_faiss(const Options& o, const Vectors& vectors) {
    faiss::Clustering clustering(
            static_cast<int>(vectors.d),
            static_cast<int>(o.k),
            parameters(o.niter));
    return train(clustering, vectors);
}

Trained train_flash(const Options& o, const Vectors& vectors) {
    FlashClustering clustering(
            static_cast<int>(vectors.d),
            static_cast<int>(o.k),
            parameters(o.niter));
    clustering.engine = o.engine;
    return train(clustering, vectors);
}

/// Both trainers, one after the other; the order changes from repetition to
/// repetition. The reported time is FlashClustering's.
void kmeans_against_faiss(
        benchmark::State& state,
        const Options& o,
        const Vectors& vectors) {
    static bool faiss_first = false;
    for (auto _ : state) {
        faiss_first = !faiss_first;
        Trained stock, flash;
        if (faiss_first) {
            stock = train_faiss(o, vectors);
        }
        flash = train_flash(o, vectors);
        if (!faiss_first) {
            stock = train_faiss(o, vectors);
        }
        state.SetIterationTime(flash.seconds);
        state.counters["faiss_s"] = stock.seconds;
        state.counters["flash_s"] = flash.seconds;
        state.counters["speedup"] = stock.seconds / flash.seconds;
        state.counters["faiss_objective"] = stock.objective;
        state.counters["flash_objective"] = flash.objective;
        state.counters["objective_difference"] =
                (flash.objective - stock.objective) / stock.objective;
    }
}

/// Whole passes, model update included, inside one training: the median of
/// `niter` EM passes beside the median of the k-means passes before them.
/// The reported time is the EM pass's.
void em_pass_against_kmeans_pass(
        benchmark::State& state,
        const Options& o,
        const Vectors& vectors) {
    for (auto _ : state) {
        GMMClustering clustering(
                static_cast<int>(vectors.d),
                static_cast<int>(o.k),
                parameters(o.niter));
        clustering.engine = o.engine;
        clustering.gmm.covariance = covariance_by_name(o.covariance);
        clustering.gmm.warm_start_niter = o.niter;
        clustering.gmm.em_niter = o.niter;
        clustering.gmm.em_tolerance = 0;
        faiss::IndexFlatL2 index(vectors.d);
        clustering.train(vectors.n, vectors.x.data(), index);

        // Times are since the start; the first k-means pass also pays for
        // the initialisation and is left out.
        const auto& hard = clustering.iteration_stats;
        std::vector<double> kmeans_pass, em_pass;
        for (size_t i = 1; i < hard.size(); i++) {
            kmeans_pass.push_back(hard[i].time - hard[i - 1].time);
        }
        double before = hard.back().time, entries = 0;
        for (const EMStats& pass : clustering.em_stats) {
            em_pass.push_back(pass.time - before);
            before = pass.time;
            entries += pass.entries_per_vector;
        }
        const double em_s = median(em_pass);
        const double kmeans_s = median(kmeans_pass);
        state.SetIterationTime(em_s);
        state.counters["em_pass_s"] = em_s;
        state.counters["kmeans_pass_s"] = kmeans_s;
        state.counters["ratio"] = em_s / kmeans_s;
        state.counters["em_passes"] =
                static_cast<double>(clustering.em_stats.size());
        state.counters["components_per_vector"] =
                entries / static_cast<double>(clustering.em_stats.size());
    }
}

/// In the child process: two k-means passes, for gmm two EM passes as well.
size_t training_memory(const Options& o) {
    const Vectors vectors = read_vectors(o.dataset, o.memory_n);
    const int d = static_cast<int>(vectors.d);
    const int k = static_cast<int>(o.memory_k);
    std::unique_ptr<faiss::Clustering> clustering;
    if (o.memory_of == "faiss") {
        clustering = std::make_unique<faiss::Clustering>(d, k, parameters(2));
    } else if (o.memory_of == "kmeans") {
        auto kmeans = std::make_unique<FlashClustering>(d, k, parameters(2));
        kmeans->engine = o.engine;
        clustering = std::move(kmeans);
    } else {
        auto gmm = std::make_unique<GMMClustering>(d, k, parameters(2));
        gmm->engine = o.engine;
        gmm->gmm.warm_start_niter = 2;
        gmm->gmm.em_niter = 2;
        gmm->gmm.em_tolerance = 0;
        clustering = std::move(gmm);
    }
    faiss::IndexFlatL2 index(vectors.d);
    const PeakMemory memory;
    clustering->train(vectors.n, vectors.x.data(), index);
    return memory.extra_bytes();
}

std::string shell_quoted(const std::string& text) {
    std::string quoted = "'";
    for (char c : text) {
        quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    return quoted + "'";
}

void extra_memory(
        benchmark::State& state,
        const Options& o,
        const std::string& trainer) {
    const std::string command = "/proc/" + std::to_string(getpid()) +
            "/exe --memory-of " + trainer + " --dataset " +
            shell_quoted(o.dataset) + " --engine " + shell_quoted(o.engine) +
            " --memory-n " + std::to_string(o.memory_n) + " --memory-k " +
            std::to_string(o.memory_k) + " --threads " +
            std::to_string(omp_get_max_threads());
    for (auto _ : state) {
        Stopwatch watch;
        size_t bytes = 0;
        std::FILE* child = popen(command.c_str(), "r");
        const bool answered = child && std::fscanf(child, "%zu", &bytes) == 1;
        const bool ended_well = child && pclose(child) == 0;
        state.SetIterationTime(watch.seconds());
        if (!answered || !ended_well) {
            state.SkipWithError("the measuring process failed, see above");
            return;
        }
        state.counters["extra_MiB"] = static_cast<double>(bytes) / (1 << 20);
    }
}

void add_context(
        const Options& o,
        const Vectors& vectors,
        size_t memory_rows,
        const std::string& command) {
    const auto add = [](const char* key, const std::string& value) {
        benchmark::AddCustomContext(key, value);
    };
    add("command", command);
    add("dataset", o.dataset.substr(o.dataset.rfind('/') + 1));
    add("training_shape",
        "n=" + std::to_string(vectors.n) + " d=" + std::to_string(vectors.d) +
                " k=" + std::to_string(o.k) +
                " niter=" + std::to_string(o.niter));
    add("memory_shape",
        "n=" + std::to_string(memory_rows) + " d=" + std::to_string(vectors.d) +
                " k=" + std::to_string(o.memory_k));
    add("engine", get_engine(o.engine).name());
    add("threads", std::to_string(omp_get_max_threads()));
    add("faiss_version", faiss_version());
    add("faiss_flash_version", version());
    add("commit", build_commit());
    const nlohmann::ordered_json machine = machine_info();
    for (const auto& [key, value] : machine.items()) {
        const std::string name = "machine_" + key;
        add(name.c_str(),
            value.is_string() ? value.get<std::string>() : value.dump());
    }
}

#ifndef __clang_analyzer__ // which takes handing over ownership for a leak
void register_benchmarks(const Options& o, const Vectors& vectors) {
    const std::string shape = "/n:" + std::to_string(vectors.n) +
            "/d:" + std::to_string(vectors.d) + "/k:" + std::to_string(o.k);
    const auto add = [&](const std::string& name, auto function) {
        return benchmark::RegisterBenchmark(name.c_str(), function)
                ->UseManualTime()
                ->Iterations(1)
                ->Unit(benchmark::kSecond);
    };
    add("kmeans_against_faiss" + shape + "/niter:" + std::to_string(o.niter),
        [&](benchmark::State& state) {
            kmeans_against_faiss(state, o, vectors);
        })->Repetitions(o.repetitions);
    add("em_pass_against_kmeans_pass" + shape, [&](benchmark::State& state) {
        em_pass_against_kmeans_pass(state, o, vectors);
    })->Repetitions(o.repetitions);
    for (const char* trainer : {"faiss", "kmeans", "gmm"}) {
        add(std::string("extra_memory/") + trainer +
                    "/k:" + std::to_string(o.memory_k),
            [&o, trainer](benchmark::State& state) {
                extra_memory(state, o, trainer);
            });
    }
}

#else
void register_benchmarks(const Options&, const Vectors&) {}
#endif

void add_options(CLI::App& app, Options& o) {
    const CLI::Validator positive = at_least(1);
    app.add_option(
               "--dataset",
               o.dataset,
               "file with training vectors (.hdf5: its dataset train)")
            ->required();
    app.add_option("--n", o.n, "rows to train on, or all there are")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--k", o.k, "centroids")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--niter", o.niter, "passes of each kind")
            ->check(in_bounds(2, 1000))
            ->capture_default_str();
    app.add_option("--covariance", o.covariance, "of the mixture")
            ->check(CLI::IsMember(
                    {"spherical", "tied_spherical", "diag", "tied_diag"}))
            ->capture_default_str();
    app.add_option("--memory-n", o.memory_n, "rows of the memory measurement")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--memory-k", o.memory_k, "centroids of it")
            ->check(positive)
            ->capture_default_str();
    app.add_option("--repetitions", o.repetitions, "of the timed parts")
            ->check(in_bounds(1, 1000))
            ->capture_default_str();
    app.add_option("--engine", o.engine, "auto, cpu or reference")
            ->capture_default_str();
    app.add_option("--threads", o.threads, "OpenMP threads (default: all)")
            ->check(in_bounds(1, 4096));
    app.add_option("--memory-of", o.memory_of)->group("");
    app.footer(
            "Options of Google Benchmark work too, for example\n"
            "--benchmark_out=FILE --benchmark_filter=REGEX "
            "--benchmark_report_aggregates_only=true");
}

/// "--dataset=/home/me/x.hdf5" as "--dataset=x.hdf5": what is kept should not
/// depend on where things lie.
std::string without_folders(std::string argument) {
    const size_t slash = argument.rfind('/');
    if (slash != std::string::npos) {
        const size_t equals = argument.find('=');
        const size_t from = equals < slash ? equals + 1 : 0;
        argument.erase(from, slash + 1 - from);
    }
    return argument;
}

int run(int argc, char** argv) {
    std::string command = "flash_bench";
    for (int i = 1; i < argc; i++) {
        command += " " + without_folders(argv[i]);
    }
    // Help is ours; Google Benchmark takes its own flags out of argv.
    Options o;
    CLI::App app{"What training costs, beside stock FAISS in the same run."};
    add_options(app, o);
    if (std::find(argv, argv + argc, std::string("--help")) == argv + argc) {
        benchmark::Initialize(&argc, argv);
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& done) {
        return app.exit(done);
    }
    if (o.threads > 0) {
        omp_set_num_threads(o.threads);
    }
    get_engine(o.engine); // throws if there is none
    if (!o.memory_of.empty()) {
        std::printf("%zu\n", training_memory(o));
        return 0;
    }
    const VectorFile file = open_vectors(o.dataset);
    const size_t memory_rows = std::min(o.memory_n, file.n());
    if (std::min(o.n, file.n()) < o.k || memory_rows < o.memory_k) {
        throw std::invalid_argument(
                o.dataset + " has " + std::to_string(file.n()) +
                " vectors, fewer than --k or --memory-k");
    }
    const Vectors vectors = read_vectors(o.dataset, o.n);
    add_context(o, vectors, memory_rows, command);
    register_benchmarks(o, vectors);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "flash_bench: %s\n", error_line(error).c_str());
        return 2;
    }
}
