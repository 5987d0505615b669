#include <eval/search_pair.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include <eval/median.h>

namespace faiss_flash {

namespace {

double process_cpu_seconds() {
    timespec now = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) +
            1e-9 * static_cast<double>(now.tv_nsec);
}

/// One index and what its searches took.
class Timed {
   public:
    Timed(const SearchTask& task, const faiss::IndexIVF& index, size_t k)
            : task_(task),
              index_(index),
              k_(k) {}

    void search(size_t begin, size_t count) {
        dist_.resize(count * k_);
        labels_.resize(count * k_);
        const double cpu = process_cpu_seconds();
        const Stopwatch watch;
        index_.search(
                static_cast<idx_t>(count),
                task_.queries.data() + begin * task_.d,
                static_cast<idx_t>(k_),
                dist_.data(),
                labels_.data());
        spent_.wall += watch.seconds();
        spent_.cpu += process_cpu_seconds() - cpu;
    }

    /// Seconds per query since the last call, for nq queries.
    QuerySeconds take(size_t nq) {
        const double count = static_cast<double>(nq);
        const QuerySeconds mean{spent_.wall / count, spent_.cpu / count};
        spent_ = {};
        return mean;
    }

   private:
    const SearchTask& task_;
    const faiss::IndexIVF& index_;
    size_t k_;
    std::vector<float> dist_;
    std::vector<idx_t> labels_;
    QuerySeconds spent_;
};

double recall_of(const SearchTask& task, faiss::IndexIVF& index, size_t probe) {
    index.nprobe = probe;
    std::vector<float> dist(task.nq * recall_k);
    std::vector<idx_t> labels(task.nq * recall_k);
    index.search(
            static_cast<idx_t>(task.nq),
            task.queries.data(),
            recall_k,
            dist.data(),
            labels.data());
    return recall_at_10(task, recall_k, labels.data());
}

} // namespace

PairTimes time_pair(
        const SearchTask& task,
        const std::vector<const faiss::IndexIVF*>& stocks,
        const faiss::IndexIVF& flash,
        const PairOptions& options) {
    const size_t nq =
            options.queries ? std::min(options.queries, task.nq) : task.nq;
    const size_t batch = std::min(options.batch, nq);
    std::vector<Timed> a;
    a.reserve(stocks.size());
    for (const faiss::IndexIVF* stock : stocks) {
        a.emplace_back(task, *stock, options.k);
    }
    Timed b(task, flash, options.k);
    const auto warm_up = [&](Timed& timed) {
        timed.search(0, batch);
        timed.take(1);
    };
    std::for_each(a.begin(), a.end(), warm_up);
    warm_up(b);

    std::vector<double> stock_wall, stock_cpu, flash_wall, flash_cpu;
    std::vector<double> wall_ratio, cpu_ratio;
    bool stock_first = false;
    for (int repetition = 0; repetition < options.repetitions; repetition++) {
        Timed& stock = a[static_cast<size_t>(repetition) % a.size()];
        for (size_t begin = 0; begin < nq; begin += batch) {
            const size_t count = std::min(batch, nq - begin);
            stock_first = !stock_first;
            (stock_first ? stock : b).search(begin, count);
            (stock_first ? b : stock).search(begin, count);
        }
        const QuerySeconds of_stock = stock.take(nq), of_flash = b.take(nq);
        stock_wall.push_back(of_stock.wall);
        stock_cpu.push_back(of_stock.cpu);
        flash_wall.push_back(of_flash.wall);
        flash_cpu.push_back(of_flash.cpu);
        wall_ratio.push_back(of_stock.wall / of_flash.wall);
        cpu_ratio.push_back(of_stock.cpu / of_flash.cpu);
    }
    PairTimes times;
    times.stock = {median(stock_wall), median(stock_cpu)};
    times.flash = {median(flash_wall), median(flash_cpu)};
    times.wall_ratio = median(wall_ratio);
    times.cpu_ratio = median(cpu_ratio);
    const auto range =
            std::minmax_element(wall_ratio.begin(), wall_ratio.end());
    times.wall_ratio_min = *range.first;
    times.wall_ratio_max = *range.second;
    return times;
}

Operating reach_recall(
        const SearchTask& task,
        faiss::IndexIVF& index,
        double recall) {
    // recalls at `low` and below miss it, those at `high` and above do not
    size_t low = 0, high = 1;
    Operating found;
    const auto reaches = [&](size_t nprobe) {
        const double value = recall_of(task, index, nprobe);
        if (value >= recall) {
            found.nprobe = nprobe;
            found.recall = value;
        } else {
            found.recall_before = value; // the last one tried is nprobe − 1
        }
        return value >= recall;
    };
    while (!reaches(high)) {
        if (high == index.nlist) {
            return {};
        }
        low = high;
        high = std::min(2 * high, index.nlist);
    }
    while (low + 1 < high) {
        const size_t middle = (low + high) / 2;
        (reaches(middle) ? high : low) = middle;
    }
    index.nprobe = found.nprobe;
    return found;
}

} // namespace faiss_flash
