#include <eval/arguments.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <stdexcept>

#include <CLI/CLI.hpp>

#include <eval/cli_checks.h>
#include <eval/run_info.h>

namespace faiss_flash {

namespace {

const char* const footer = R"(
Methods: faiss (stock Clustering and index class) and TRAINER+POLICY with
trainers kmeans, gmm and policies nearest, top_m, responsibility, closure,
air, soar; `all` is every one of them.

Writes curves.csv (one row per measurement, as it is made), summary.json and
run.json into the --out folder; report.py turns them into plots and a page.
Ctrl-C stops cleanly: what was measured is kept and summarised.

Columns and the way distances are counted: eval/README.md.)";

void add_data_options(CLI::App& app, Arguments& a) {
    const char* group = "Data";
    app.add_option(
               "--dataset",
               a.dataset,
               "ann-benchmarks .hdf5 file, or a folder or prefix of "
               "base/query/groundtruth files")
            ->required()
            ->group(group);
    app.add_option(
               "--dataset-metric",
               a.dataset_metric,
               "l2 or angular, for sets that do not say (not HDF5)")
            ->group(group);
    app.add_option(
               "--rows",
               a.rows,
               "use the first ROWS base vectors; true neighbours are then "
               "computed")
            ->check(at_least(1))
            ->group(group);
    app.add_option("--queries", a.queries, "use the first QUERIES queries")
            ->check(at_least(1))
            ->group(group);
    app.add_option("--out", a.out, "folder for the results, made if missing")
            ->required()
            ->group(group);
    app.add_flag(
               "--append",
               a.append,
               "keep the rows of the folder's curves.csv and add to them; "
               "otherwise an older one is kept as curves.previous.csv")
            ->group(group);
}

void add_comparison_options(CLI::App& app, Arguments& a) {
    const char* group = "Comparison";
    app.add_option(
               "--nlist",
               a.nlist,
               "posting lists, one or several numbers (default: the power of "
               "two nearest to sqrt(n))")
            ->delimiter(',')
            ->check(at_least(1))
            ->group(group);
    app.add_option("--methods", a.methods, "methods to compare, or all")
            ->delimiter(',')
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--codec",
               a.codecs,
               "flat, sq8, pqM; each with +rerank for exact re-ranking")
            ->delimiter(',')
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--rerank",
               a.rerank,
               "candidates per result that +rerank looks at")
            ->check(in_bounds(1.0, 10000.0))
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--nprobe",
               a.nprobe,
               "lists visited per query (default: powers of 2^(1/4) up to a "
               "third of nlist, until recall exceeds 0.995 or rises no more)")
            ->delimiter(',')
            ->check(at_least(1))
            ->group(group);
    app.add_option(
               "--metric",
               a.metric,
               "l2, or ip (angular sets only); l2 on vectors of length one "
               "ranks as the angle does")
            ->check(CLI::IsMember({"l2", "ip"}))
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--k",
               a.k,
               "results asked for per query; recall is of the first 10")
            ->check(at_least(10))
            ->capture_default_str()
            ->group(group);
    app.add_option("--seeds", a.seeds, "repeat everything with so many seeds")
            ->check(in_bounds(1, 1000))
            ->capture_default_str()
            ->group(group);
    app.add_option("--first-seed", a.first_seed, "the first of them")
            ->check(at_least(0))
            ->capture_default_str()
            ->group(group);
}

void add_training_options(CLI::App& app, Arguments& a) {
    const char* group = "Training";
    app.add_option(
               "--niter",
               a.niter,
               "k-means passes: of faiss, of kmeans, and of gmm's warm start")
            ->check(at_least(1))
            ->capture_default_str()
            ->group(group);
    app.add_option("--em-niter", a.em_niter, "EM passes of gmm at most")
            ->check(at_least(1))
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--em-tolerance",
               a.em_tolerance,
               "EM stops when a pass adds less log-likelihood per vector")
            ->check(at_least(0))
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--covariance",
               a.covariance,
               "of gmm: spherical, tied_spherical, diag or tied_diag")
            ->check(CLI::IsMember(
                    {"spherical", "tied_spherical", "diag", "tied_diag"}))
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--max-points-per-centroid",
               a.max_points_per_centroid,
               "train on a random subset of at most so many times nlist")
            ->check(at_least(1))
            ->capture_default_str()
            ->group(group);
    app.add_option("--engine", a.engine, "auto, cpu or reference")
            ->capture_default_str()
            ->group(group);
    app.add_option("--threads", a.threads, "OpenMP threads (default: all)")
            ->check(in_bounds(1, 4096))
            ->group(group);
}

void add_policy_options(CLI::App& app, Arguments& a) {
    const char* group = "Assignment";
    PolicyOptions& p = a.policy;
    app.add_option(
               "--tau",
               p.tau,
               "responsibility a list must exceed, in (0, 1) (default: 1/K)")
            ->check(in_bounds(0.0, 1.0))
            ->group(group);
    app.add_option("--lambda", p.lambda, "direction term of air and soar")
            ->check(at_least(0))
            ->capture_default_str()
            ->group(group);
    app.add_flag("--strict", p.strict, "air: always a second list")
            ->group(group);
    app.add_option("--epsilon", p.epsilon, "closure's slack on the distance")
            ->check(at_least(0))
            ->capture_default_str()
            ->group(group);
    app.add_option(
               "--max-lists",
               p.max_lists,
               "lists per vector for top_m, responsibility (default: 2) and "
               "closure (default: 8)")
            ->check(at_least(1))
            ->group(group);
    app.add_option(
               "--candidates",
               p.candidates,
               "nearest lists that closure, air and soar choose from")
            ->check(at_least(1))
            ->capture_default_str()
            ->group(group);
}

/// Give options the user left alone the values of a named experiment.
void apply_preset(
        const CLI::App& app,
        const std::string& preset,
        Arguments& a) {
    const auto free = [&](const char* option) {
        return app.count(option) == 0;
    };
    const auto set = [&](const char* option, auto& field, auto value) {
        if (free(option)) {
            field = std::move(value);
        }
    };
    using Names = std::vector<std::string>;
    using Numbers = std::vector<size_t>;
    if (preset == "quick") {
        set("--rows", a.rows, size_t(20000));
        set("--queries", a.queries, size_t(200));
        set("--methods", a.methods, Names{"faiss", "gmm+air"});
        set("--nprobe", a.nprobe, Numbers{1, 2, 4, 8, 16, 32});
        set("--em-niter", a.em_niter, 20);
    } else if (preset == "sample") {
        set("--nlist", a.nlist, Numbers{256});
        set("--codec", a.codecs, Names{"flat", "pq16", "pq16+rerank"});
        set("--seeds", a.seeds, size_t(2));
    }
}

std::string typed(int argc, const char* const* argv) {
    std::string text;
    for (int i = 0; i < argc; i++) {
        std::string word = argv[i];
        if (i == 0) {
            word = word.substr(word.find_last_of('/') + 1);
        }
        const bool plain = !word.empty() &&
                word.find_first_of(" \t\n'\"$&|;<>*?()\\`") ==
                        std::string::npos;
        text += (i ? " " : "") + (plain ? word : "'" + word + "'");
    }
    return text;
}

} // namespace

std::optional<int> parse_arguments(
        int argc,
        const char* const* argv,
        Arguments& arguments) {
    CLI::App app{
            "Recall against distance computations: stock FAISS IVF indexes "
            "and soft-trained, multi-assigned ones."};
    app.footer(footer);
    app.get_formatter()->column_width(34);
    std::string preset;
    bool quick = false;
    add_data_options(app, arguments);
    add_comparison_options(app, arguments);
    add_training_options(app, arguments);
    add_policy_options(app, arguments);
    app.add_option(
               "--preset",
               preset,
               "values for what is not given: sample (the bundled sample, two "
               "seeds, flat and PQ), quick (a small part, to see it work)")
            ->check(CLI::IsMember({"sample", "quick"}));
    app.add_flag("--quick", quick, "the same as --preset quick");
    app.set_version_flag("--version", version_line());
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& done) { // help and version
        return app.exit(done);
    }
    if (quick && preset == "sample") {
        throw std::invalid_argument("--quick contradicts --preset sample");
    }
    apply_preset(app, quick ? "quick" : preset, arguments);
    if (app.count("--tau") > 0 &&
        !(arguments.policy.tau > 0 && arguments.policy.tau < 1)) {
        throw std::invalid_argument("--tau must be between 0 and 1");
    }
    arguments.command = typed(argc, argv);
    return std::nullopt;
}

size_t automatic_nlist(size_t n) {
    const double exponent = std::round(std::log2(static_cast<double>(n)) / 2);
    return static_cast<size_t>(std::exp2(exponent));
}

std::vector<size_t> automatic_nprobe(size_t nlist) {
    const size_t most = std::max<size_t>(1, nlist / 3);
    std::vector<size_t> list;
    for (int i = 0;; i++) {
        const size_t nprobe =
                static_cast<size_t>(std::lround(std::exp2(i / 4.0)));
        if (nprobe > most) {
            return list;
        }
        if (list.empty() || nprobe > list.back()) {
            list.push_back(nprobe);
        }
    }
}

} // namespace faiss_flash
