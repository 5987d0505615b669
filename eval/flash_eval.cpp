// flash_eval: recall against distance computations, stock FAISS beside this
// library's indexes. eval/README.md explains what is counted.

#include <omp.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <datasets/error_line.h>
#include <eval/arguments.h>
#include <eval/curves.h>
#include <eval/interrupt.h>
#include <eval/run_info.h>
#include <eval/summary.h>
#include <eval/sweep.h>
#include <eval/table.h>
#include <eval/task.h>
#include <faiss_flash/version.h>

namespace fs = std::filesystem;
using namespace faiss_flash;

namespace {

/// Exit code after Ctrl-C, as shells have it.
constexpr int exit_interrupted = 130;

void make_folder(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (!fs::is_directory(path)) {
        throw std::invalid_argument("--out " + path + ": cannot be made");
    }
}

/// Rows to go on from; an older file that is not continued is set aside.
std::vector<CurveRow> earlier_rows(const fs::path& curves, bool append) {
    if (!fs::exists(curves)) {
        return {};
    }
    if (append) {
        return read_curves(curves.string());
    }
    fs::rename(curves, curves.parent_path() / "curves.previous.csv");
    return {};
}

void write_json(const fs::path& path, const nlohmann::ordered_json& json) {
    // Under another name first: a reader sees the old file or the new one.
    const fs::path partial = path.string() + ".part";
    std::ofstream file(partial);
    file << json.dump(1) << "\n";
    file.close();
    if (!file) {
        throw std::runtime_error("cannot write " + partial.string());
    }
    fs::rename(partial, path);
}

nlohmann::ordered_json run_info(const Arguments& arguments) {
    nlohmann::ordered_json info;
    info["command"] = arguments.command;
    info["started"] = utc_now();
    info["machine"] = machine_info();
    info["threads"] = omp_get_max_threads();
    info["faiss_flash_version"] = version();
    info["faiss_version"] = faiss_version();
    info["commit"] = build_commit();
    return info;
}

int run(const Arguments& arguments) {
    if (arguments.threads > 0) {
        omp_set_num_threads(arguments.threads);
    }
    const LoadedTask loaded = load_task(arguments);
    const SweepPlan plan = plan_sweep(arguments, loaded);
    make_folder(arguments.out);
    const fs::path out = arguments.out;
    std::vector<CurveRow> rows =
            earlier_rows(out / "curves.csv", arguments.append);
    CurveWriter writer((out / "curves.csv").string(), rows);
    nlohmann::ordered_json info = run_info(arguments);

    catch_interrupts();
    const bool complete =
            run_sweep(arguments, plan, loaded, [&](const CurveRow& row) {
                writer.add(row);
                rows.push_back(row);
            });

    const std::vector<SummaryEntry> summary = summarize(rows);
    write_json(out / "summary.json", to_json(summary));
    info["finished"] = utc_now();
    info["complete"] = complete;
    write_json(out / "run.json", info);
    std::fputs(summary_table(summary).c_str(), stdout);
    if (!complete) {
        std::fprintf(
                stderr,
                "flash_eval: interrupted; %zu rows are in %s\n",
                rows.size(),
                (out / "curves.csv").c_str());
        return exit_interrupted;
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        Arguments arguments;
        const auto done = parse_arguments(argc, argv, arguments);
        return done ? *done : run(arguments);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "flash_eval: %s\n", error_line(error).c_str());
        return 2;
    }
}
