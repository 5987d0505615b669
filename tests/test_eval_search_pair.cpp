// Timing two indexes against each other.

#include <tests/index_util.h>

#include <omp.h>

#include <faiss/IndexIVFFlat.h>

#include <eval/median.h>
#include <eval/search_pair.h>

using namespace faiss_flash;

namespace {

constexpr size_t d = 8, nlist = 40;

SearchTask make_task() {
    SearchTask task;
    task.n = 2000;
    task.d = d;
    task.nq = 30;
    task.base = test::clustered(task.n, d, 1);
    task.queries = test::clustered(task.nq, d, 2);
    task.true_k = recall_k;
    faiss::IndexFlatL2 exact(d);
    exact.add(task.n, task.base.data());
    std::vector<float> dist(task.nq * recall_k);
    task.true_ids.resize(task.nq * recall_k);
    exact.search(
            task.nq,
            task.queries.data(),
            recall_k,
            dist.data(),
            task.true_ids.data());
    return task;
}

} // namespace

TEST_CASE("the median") {
    CHECK(median({3}) == 3);
    CHECK(median({5, 1, 3}) == 3);
    CHECK(median({4, 1, 2, 8}) == 3);
}

TEST_CASE("the smallest nprobe for a recall") {
    const SearchTask task = make_task();
    auto quantizer = test::first_rows_quantizer(d, nlist, task.base);
    faiss::IndexIVFFlat index(quantizer.get(), d, nlist);
    index.train(task.n, task.base.data());
    index.add(task.n, task.base.data());

    std::vector<double> recalls;
    std::vector<float> dist(task.nq * recall_k);
    std::vector<idx_t> labels(task.nq * recall_k);
    for (size_t nprobe = 1; nprobe <= nlist; nprobe++) {
        index.nprobe = nprobe;
        index.search(
                task.nq,
                task.queries.data(),
                recall_k,
                dist.data(),
                labels.data());
        recalls.push_back(recall_at_10(task, recall_k, labels.data()));
    }
    for (const double wanted : {0.1, 0.5, 0.8, 0.95, 1.0}) {
        const Operating found = reach_recall(task, index, wanted);
        REQUIRE(found.nprobe >= 1);
        CHECK(index.nprobe == found.nprobe);
        CHECK(found.recall == recalls[found.nprobe - 1]);
        CHECK(found.recall >= wanted);
        if (found.nprobe > 1) {
            CHECK(recalls[found.nprobe - 2] < wanted);
            CHECK(found.recall_before == recalls[found.nprobe - 2]);
        }
    }
    CHECK(reach_recall(task, index, 1.01).nprobe == 0);
}

TEST_CASE("timing a pair finds the one that does more") {
    const SearchTask task = make_task();
    auto quantizer = test::first_rows_quantizer(d, nlist, task.base);
    faiss::IndexIVFFlat few(quantizer.get(), d, nlist);
    faiss::IndexIVFFlat all(quantizer.get(), d, nlist);
    for (faiss::IndexIVFFlat* index : {&few, &all}) {
        index->train(task.n, task.base.data());
        index->add(task.n, task.base.data());
    }
    all.nprobe = nlist;
    PairOptions options;
    options.batch = 7; // the last one is shorter
    options.repetitions = 4;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1); // waiting threads' CPU time would count
    const PairTimes times = time_pair(task, {&all, &all}, few, options);
    omp_set_num_threads(threads);
    CHECK(times.cpu_ratio > 1);
    CHECK(times.flash.wall > 0);
    CHECK(times.stock.cpu > times.flash.cpu);
    CHECK(times.wall_ratio_min <= times.wall_ratio);
    CHECK(times.wall_ratio <= times.wall_ratio_max);
}
