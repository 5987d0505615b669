#include <omp.h>

#include <algorithm>
#include <cmath>

#include <faiss_flash/cpu/kernels.h>
#include <faiss_flash/cpu/mixture_rows.h>
#include <faiss_flash/cpu/segment_sums.h>
#include <faiss_flash/engine/chunks.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

namespace {

/// fn(block, first row, rows, scratch) for every block of up to row_block
/// rows, in parallel; what each call computes depends on its rows alone.
template <class Fn>
void parallel_row_blocks(
        size_t n,
        std::vector<ScoreScratch>& scratches,
        Fn&& fn) {
    if (n == 0) {
        return;
    }
    const int64_t blocks = (n + row_block - 1) / row_block;
    const int threads = std::min<int64_t>(omp_get_max_threads(), blocks);
    if (scratches.size() < (size_t)threads) {
        scratches.resize(threads);
    }
    OmpExceptions exceptions;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        ScoreScratch& scratch = scratches[omp_get_thread_num()];
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < blocks; b++) {
            exceptions.run([&] {
                const size_t i0 = b * row_block;
                fn(b, i0, std::min(row_block, n - i0), scratch);
            });
        }
    }
    exceptions.rethrow();
}

class CpuTrainingSet : public TrainingSet {
   public:
    explicit CpuTrainingSet(const VectorSource& source) : source_(source) {}

    void accumulate(const Model& model, Pass pass, Statistics& out) override {
        const bool soft = pass == Pass::soft;
        out.reset(model.k, model.d, soft ? model.variances_per_component() : 1);
        const PackedModel packed = pack_model(
                model, soft ? ScoreKind::log_density : ScoreKind::nearest);
        const MixtureRows mixture(model, packed);
        for_each_chunk(
                source_,
                chunk_rows(model, pass),
                [&](size_t, size_t count, const float* x, const float* w) {
                    blocks_.resize((count + row_block - 1) / row_block);
                    values_.resize(count);
                    best_.resize(count);
                    if (soft) {
                        share_soft(mixture, count, x, w, out);
                    } else {
                        share_hard(model, packed, count, x, w);
                    }
                    sums_.add(blocks_, blocks_.size(), x, model, out);
                    add_rows(pass, count, w, out);
                });
    }

   private:
    /// Rows per chunk: what is kept per row is bounded, also when every
    /// component holds a share of every vector (2²³ shares are 128 MiB).
    static size_t chunk_rows(const Model& model, Pass pass) {
        const size_t most = 65536 / row_block * row_block;
        if (pass == Pass::hard) {
            return most;
        }
        const size_t rows = (size_t(1) << 23) / model.k;
        return std::clamp(rows / row_block * row_block, row_block, most);
    }

    void share_hard(
            const Model& model,
            const PackedModel& packed,
            size_t count,
            const float* x,
            const float* w) {
        const size_t d = model.d;
        parallel_row_blocks(
                count,
                scratches_,
                [&](size_t b, size_t i0, size_t rows, ScoreScratch& scratch) {
                    uint32_t labels[row_block];
                    best_centroids(packed, rows, x + i0 * d, labels, scratch);
                    blocks_[b].clear();
                    for (size_t i = 0; i < rows; i++) {
                        const float* xi = x + (i0 + i) * d;
                        const float* mean = model.means.data() + labels[i] * d;
                        const float dist = l2_distance(xi, mean, d);
                        best_[i0 + i] = labels[i];
                        values_[i0 + i] = model.metric == Metric::l2
                                ? dist
                                : dot_product(xi, mean, d);
                        blocks_[b].push_back(
                                {uint32_t(i0 + i),
                                 labels[i],
                                 w ? w[i0 + i] : 1.0f,
                                 dist});
                    }
                });
    }

    void share_soft(
            const MixtureRows& mixture,
            size_t count,
            const float* x,
            const float* w,
            Statistics& out) {
        std::vector<double> dropped(blocks_.size());
        parallel_row_blocks(
                count,
                scratches_,
                [&](size_t b, size_t i0, size_t rows, ScoreScratch& scratch) {
                    auto& shares = blocks_[b];
                    shares.clear();
                    mixture.evaluate(
                            rows,
                            x + i0 * mixture.d(),
                            scratch,
                            [&](size_t i, const MixtureRow& row) {
                                const float wi = w ? w[i0 + i] : 1.0f;
                                for (const Component& c : row.components) {
                                    shares.push_back(
                                            {uint32_t(i0 + i),
                                             c.number,
                                             c.responsibility * wi,
                                             c.dist});
                                }
                                values_[i0 + i] = wi * row.log_likelihood;
                                best_[i0 + i] = row.best;
                                dropped[b] =
                                        std::max(dropped[b], row.dropped_mass);
                            });
                });
        for (double mass : dropped) {
            out.dropped_mass = std::max(out.dropped_mass, mass);
        }
    }

    /// What is summed over rows, in row order.
    void add_rows(Pass pass, size_t count, const float* w, Statistics& out) {
        double value = 0, weight = 0;
        for (size_t i = 0; i < count; i++) {
            value += values_[i];
            weight += w ? w[i] : 1.0f;
            out.members[best_[i]]++;
        }
        (pass == Pass::hard ? out.objective : out.log_likelihood) += value;
        out.total_weight += weight;
        out.n += count;
    }

    const VectorSource& source_;
    std::vector<std::vector<Share>> blocks_;
    std::vector<double> values_;
    std::vector<uint32_t> best_;
    std::vector<ScoreScratch> scratches_; ///< per thread
    SegmentSums sums_;
};

class CpuEngine : public Engine {
   public:
    const char* name() const override {
        return "cpu";
    }

    std::unique_ptr<TrainingSet> open(
            const VectorSource& source,
            const EngineOptions&) const override {
        return std::make_unique<CpuTrainingSet>(source);
    }

    void nearest(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* dist) const override {
        const size_t d = model.d;
        const PackedModel packed = pack_model(model, ScoreKind::nearest);
        std::vector<ScoreScratch> scratches;
        parallel_row_blocks(
                n,
                scratches,
                [&](size_t, size_t i0, size_t rows, ScoreScratch& scratch) {
                    top_centroids(packed, rows, x + i0 * d, m, scratch);
                    for (size_t i = 0; i < rows; i++) {
                        rank(model,
                             x + (i0 + i) * d,
                             scratch.picked[i],
                             labels + (i0 + i) * m,
                             dist + (i0 + i) * m);
                    }
                });
    }

    void responsibilities(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* resp,
            float* log_likelihood) const override {
        const PackedModel packed = pack_model(model, ScoreKind::log_density);
        const MixtureRows mixture(model, packed);
        std::vector<ScoreScratch> scratches;
        parallel_row_blocks(
                n,
                scratches,
                [&](size_t, size_t i0, size_t rows, ScoreScratch& scratch) {
                    mixture.evaluate(
                            rows,
                            x + i0 * model.d,
                            scratch,
                            [&](size_t i, MixtureRow& row) {
                                take_largest(
                                        row,
                                        m,
                                        labels + (i0 + i) * m,
                                        resp + (i0 + i) * m);
                                if (log_likelihood) {
                                    log_likelihood[i0 + i] = row.log_likelihood;
                                }
                            });
                });
    }

   private:
    /// Exact distances of the chosen centroids, best first.
    static void rank(
            const Model& model,
            const float* x,
            std::vector<Scored>& top,
            idx_t* labels,
            float* dist) {
        const bool l2 = model.metric == Metric::l2;
        for (Scored& s : top) {
            const float* c = model.means.data() + s.centroid * model.d;
            s.score = l2 ? l2_distance(x, c, model.d)
                         : dot_product(x, c, model.d);
        }
        std::sort(
                top.begin(), top.end(), [&](const Scored& a, const Scored& b) {
                    if (a.score != b.score) {
                        return l2 ? a.score < b.score : a.score > b.score;
                    }
                    return a.centroid < b.centroid;
                });
        for (size_t j = 0; j < top.size(); j++) {
            labels[j] = top[j].centroid;
            dist[j] = top[j].score;
        }
    }

    static void take_largest(
            MixtureRow& row,
            size_t m,
            idx_t* labels,
            float* resp) {
        auto& all = row.components;
        const size_t found = std::min(m, all.size());
        std::partial_sort(
                all.begin(),
                all.begin() + found,
                all.end(),
                [](const Component& a, const Component& b) {
                    return a.responsibility != b.responsibility
                            ? a.responsibility > b.responsibility
                            : a.number < b.number;
                });
        for (size_t j = 0; j < m; j++) {
            labels[j] = j < found ? (idx_t)all[j].number : -1;
            resp[j] = j < found ? all[j].responsibility : 0;
        }
    }
};

} // namespace

const Engine& cpu_engine() {
    static const CpuEngine engine;
    return engine;
}

} // namespace faiss_flash
