// flash_groundtruth: exact nearest neighbours for data sets that come without.

#include <omp.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <datasets/error_line.h>
#include <datasets/ground_truth.h>
#include <datasets/ground_truth_file.h>
#include <datasets/progress.h>
#include <faiss/impl/FaissAssert.h>

using namespace faiss_flash;

namespace {

struct Options {
    std::string base, queries, out, metric;
    size_t k = 100;
    size_t rows = 0; // 0: all
    int threads = 0; // 0: as OpenMP decides
};

void add_options(CLI::App& app, Options& o) {
    app.add_option(
               "--base",
               o.base,
               "vectors to search (.fvecs .bvecs .fbin .u8bin .i8bin, or "
               ".hdf5: its dataset train)")
            ->required();
    app.add_option(
               "--queries",
               o.queries,
               "query vectors (the same formats; .hdf5: its dataset test)")
            ->required();
    app.add_option("--metric", o.metric, "l2 or angular")->required();
    app.add_option(
               "--out",
               o.out,
               "file to write: .ivecs or .ibin (ids alone), or .hdf5 (a whole "
               "ann-benchmarks data set: vectors, queries, ids, distances)")
            ->required();
    app.add_option("--k", o.k, "neighbours per query, 100 if not given");
    app.add_option("--rows", o.rows, "use only the first ROWS base vectors")
            ->check(CLI::PositiveNumber);
    app.add_option("--threads", o.threads, "OpenMP threads")
            ->check(CLI::PositiveNumber);
}

/// Everything that can be known to be wrong before hours of work.
void check_out(const Options& o) {
    namespace fs = std::filesystem;
    const std::string ext = fs::path(o.out).extension().string();
    FAISS_THROW_IF_NOT_FMT(
            ext == ".ivecs" || ext == ".ibin" || is_hdf5_file(o.out),
            "--out %s: unknown extension, must be .ivecs, .ibin or .hdf5",
            o.out.c_str());
    std::error_code ignored;
    FAISS_THROW_IF_NOT_FMT(
            !fs::equivalent(o.out, o.base, ignored) &&
                    !fs::equivalent(o.out, o.queries, ignored),
            "--out %s: is also read from",
            o.out.c_str());
    FAISS_THROW_IF_NOT_FMT(
            !fs::is_directory(o.out), "--out %s: is a folder", o.out.c_str());
    const fs::path folder = fs::absolute(o.out).parent_path();
    FAISS_THROW_IF_NOT_FMT(
            access(folder.c_str(), W_OK) == 0,
            "--out %s: cannot write to the folder %s",
            o.out.c_str(),
            folder.c_str());
}

void run(const Options& o) {
    const DatasetMetric metric = parse_metric(o.metric);
    check_out(o);
    VectorFile base = open_vectors(o.base, "train");
    if (o.rows > 0) {
        base = base.first_rows(o.rows);
    }
    const VectorFile query_file = open_vectors(o.queries, "test");
    FAISS_THROW_IF_NOT_FMT(
            query_file.d() == base.d(),
            "%s: dimension %zu, but %s has dimension %zu",
            query_file.name().c_str(),
            query_file.d(),
            base.name().c_str(),
            base.d());
    if (o.threads > 0) {
        omp_set_num_threads(o.threads);
    }
    const size_t nq = query_file.n();
    std::vector<float> queries(nq * base.d());
    query_file.read(0, nq, queries.data());

    GroundTruth truth;
    {
        ProgressBar bar("searching", static_cast<double>(base.n()));
        GroundTruthOptions options;
        options.progress = [&](size_t rows) {
            bar.update(static_cast<double>(rows));
        };
        truth = exact_ground_truth(
                base, nq, queries.data(), o.k, metric, options);
    }
    if (is_hdf5_file(o.out)) {
        ProgressBar bar("writing", static_cast<double>(base.n()));
        write_hdf5_dataset(
                o.out, base, query_file, truth, metric, [&](size_t rows) {
                    bar.update(static_cast<double>(rows));
                });
    } else {
        write_id_file(o.out, truth);
    }
    std::printf(
            "%s: %zu nearest of %zu vectors for %zu queries, dimension %zu, "
            "%s\n",
            o.out.c_str(),
            o.k,
            base.n(),
            nq,
            base.d(),
            metric_name(metric));
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{
            "Exact nearest neighbours of every query, with ties by lowest id."};
    Options options;
    try {
        add_options(app, options);
        app.parse(argc, argv);
        run(options);
        return 0;
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const std::exception& error) {
        std::fprintf(
                stderr, "flash_groundtruth: %s\n", error_line(error).c_str());
        return 2;
    }
}
