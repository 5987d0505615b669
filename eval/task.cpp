#include <eval/task.h>

#include <algorithm>
#include <stdexcept>

#include <datasets/dataset.h>
#include <datasets/ground_truth.h>
#include <datasets/progress.h>

namespace faiss_flash {

namespace {

void read_base(const VectorFile& file, SearchTask& task) {
    const size_t block = 65536;
    ProgressBar progress("reading", static_cast<double>(task.n));
    task.base.resize(task.n * task.d);
    for (size_t i0 = 0; i0 < task.n; i0 += block) {
        const size_t count = std::min(block, task.n - i0);
        file.read(i0, count, task.base.data() + i0 * task.d);
        progress.update(static_cast<double>(i0 + count));
    }
}

/// The first recall_k columns of the file's ids.
void take_true_ids(const Dataset& set, SearchTask& task) {
    for (size_t i = 0; i < task.nq; i++) {
        const int64_t* row = set.ground_truth.data() + i * set.gtk;
        task.true_ids.insert(task.true_ids.end(), row, row + recall_k);
    }
}

void compute_true_ids(
        const VectorFile& base,
        DatasetMetric metric,
        SearchTask& task) {
    ProgressBar progress(
            "computing true neighbours", static_cast<double>(task.n));
    GroundTruthOptions options;
    options.progress = [&](size_t rows) {
        progress.update(static_cast<double>(rows));
    };
    task.true_ids = exact_ground_truth(
                            base,
                            task.nq,
                            task.queries.data(),
                            recall_k,
                            metric,
                            options)
                            .ids;
}

} // namespace

LoadedTask load_task(const Arguments& arguments) {
    Dataset set = open_dataset(
            arguments.dataset, parse_metric(arguments.dataset_metric));
    const bool part = arguments.rows > 0 && arguments.rows < set.base.n();
    if (arguments.rows > set.base.n()) {
        throw std::invalid_argument(
                "--rows " + std::to_string(arguments.rows) + ": " + set.name +
                " has " + std::to_string(set.base.n()) + " vectors");
    }
    if (arguments.queries > set.nq) {
        throw std::invalid_argument(
                "--queries " + std::to_string(arguments.queries) + ": " +
                set.name + " has " + std::to_string(set.nq) + " queries");
    }
    const VectorFile base =
            part ? set.base.first_rows(arguments.rows) : set.base;

    LoadedTask loaded;
    loaded.name = set.name;
    loaded.angular = set.metric == DatasetMetric::Angular;
    SearchTask& task = loaded.task;
    task.n = base.n();
    task.d = base.d();
    task.nq = arguments.queries > 0 ? arguments.queries : set.nq;
    task.true_k = recall_k;
    if (task.n < recall_k) {
        throw std::invalid_argument(
                set.name + ": recall@10 needs at least 10 vectors, there are " +
                std::to_string(task.n));
    }
    task.queries.assign(
            set.queries.begin(), set.queries.begin() + task.nq * task.d);
    read_base(base, task);
    if (part || set.gtk < recall_k) {
        compute_true_ids(base, set.metric, task);
    } else {
        take_true_ids(set, task);
    }
    return loaded;
}

} // namespace faiss_flash
