#include <datasets/ground_truth.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>

#include <faiss/IndexFlat.h>
#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace {

/// Candidates beyond k that FAISS is asked for, so that its rounding errors
/// rarely make the search in double necessary.
constexpr size_t extra_candidates = 32;

/// Queries searched at a time: bounds the memory of the candidates.
constexpr size_t query_block = 4096;

/// Half a unit in the last place of 1: the rounding error of one operation.
constexpr double unit_roundoff = FLT_EPSILON / 2.0;

struct Neighbor {
    double dist;
    int64_t id;

    bool operator<(const Neighbor& other) const {
        return dist < other.dist || (dist == other.dist && id < other.id);
    }
};

/// Rows as stored, their squared norms, and for Angular a copy scaled to
/// length 1 that FAISS searches.
struct Rows {
    size_t n = 0;
    std::vector<float> x;
    std::vector<float> unit;
    std::vector<double> norm_sq;
    double max_norm_sq = 0;

    const float* searched() const {
        return unit.empty() ? x.data() : unit.data();
    }
};

/// Fills in norms and the scaled copy of rows.x; the row numbers in errors
/// start at first_row.
void prepare(
        Rows& rows,
        size_t n,
        size_t d,
        DatasetMetric metric,
        size_t first_row,
        const std::string& name,
        ZeroRow zero) {
    rows.n = n;
    rows.norm_sq.resize(n);
#pragma omp parallel for
    for (int64_t i = 0; i < static_cast<int64_t>(n); i++) {
        double sum = 0;
        for (size_t j = 0; j < d; j++) {
            sum += double(rows.x[i * d + j]) * rows.x[i * d + j];
        }
        rows.norm_sq[i] = sum;
    }
    rows.max_norm_sq = 0;
    for (size_t i = 0; i < n; i++) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(rows.norm_sq[i]),
                "%s: row %zu holds a NaN or an infinity",
                name.c_str(),
                first_row + i);
        rows.max_norm_sq = std::max(rows.max_norm_sq, rows.norm_sq[i]);
    }
    if (metric == DatasetMetric::Angular) {
        rows.unit = rows.x;
        normalize_rows(n, d, rows.unit.data(), first_row, name, zero);
    }
}

class Searcher {
   public:
    Searcher(size_t d, size_t k, DatasetMetric metric)
            : d_(d),
              k_(k),
              metric_(metric) {
        if (metric == DatasetMetric::L2) {
            index_ = std::make_unique<faiss::IndexFlatL2>(d);
        } else {
            index_ = std::make_unique<faiss::IndexFlatIP>(d);
        }
    }

    /// Merges the block's rows, which start at id0, into every query's list.
    void search_block(
            const Rows& block,
            int64_t id0,
            const Rows& queries,
            std::vector<std::vector<Neighbor>>& best) {
        index_->reset();
        index_->add(block.n, block.searched());
        const size_t kc = std::min(block.n, k_ + extra_candidates);
        for (size_t q0 = 0; q0 < queries.n; q0 += query_block) {
            const size_t nq = std::min(query_block, queries.n - q0);
            scores_.resize(nq * kc);
            labels_.resize(nq * kc);
            index_->search(
                    nq,
                    queries.searched() + q0 * d_,
                    kc,
                    scores_.data(),
                    labels_.data());
#pragma omp parallel for schedule(dynamic, 16)
            for (int64_t i = 0; i < static_cast<int64_t>(nq); i++) {
                merge(block,
                      id0,
                      queries,
                      q0 + i,
                      kc,
                      scores_.data() + i * kc,
                      labels_.data() + i * kc,
                      best[q0 + i]);
            }
        }
    }

   private:
    double exact_dist(
            const Rows& block,
            size_t row,
            const Rows& queries,
            size_t q) const {
        const float* x = block.x.data() + row * d_;
        const float* y = queries.x.data() + q * d_;
        double sum = 0;
        if (metric_ == DatasetMetric::L2) {
            for (size_t j = 0; j < d_; j++) {
                const double diff = double(x[j]) - y[j];
                sum += diff * diff;
            }
            return sum;
        }
        for (size_t j = 0; j < d_; j++) {
            sum += double(x[j]) * y[j];
        }
        const double norms = block.norm_sq[row] * queries.norm_sq[q];
        return norms > 0 ? 1 - sum / std::sqrt(norms) : 1;
    }

    /// FAISS's float score as a distance.
    double score_dist(float score) const {
        return metric_ == DatasetMetric::L2 ? score : 1 - double(score);
    }

    /// How far score_dist() can be from the exact distance.
    ///
    /// A sum of d products of floats, in any order, is off by at most
    /// (d + 1) u sum |x_j y_j|, u the unit round-off, to first order. L2 is
    /// ||x||² + ||y||² - 2 x.y from three such sums, so (||x|| + ||y||)²
    /// bounds the sum of magnitudes, and 2 (||x||² + ||y||²) bounds that.
    /// Angular: magnitudes sum to 1 and the scaled components are themselves
    /// rounded. The added terms cover the few last operations, second order
    /// and underflow.
    double score_error(const Rows& block, double query_norm_sq) const {
        const double terms = (d_ + 8.0) * unit_roundoff;
        const double underflow = d_ * double(FLT_MIN);
        if (metric_ == DatasetMetric::Angular) {
            return terms + underflow;
        }
        const double magnitude = 2 * (block.max_norm_sq + query_norm_sq);
        // Too long for squares in float: no score can be trusted.
        return magnitude < FLT_MAX / 2.0
                ? terms * magnitude + underflow
                : std::numeric_limits<double>::infinity();
    }

    /// `best`: sorted, at most k. Nothing throws here but lack of memory,
    /// which the reservations of the caller rule out.
    void merge(
            const Rows& block,
            int64_t id0,
            const Rows& queries,
            size_t q,
            size_t kc,
            const float* scores,
            const int64_t* labels,
            std::vector<Neighbor>& best) const {
        const double error = score_error(block, queries.norm_sq[q]);
        bool complete = true;
        for (size_t c = 0; c < kc && complete; c++) {
            if (labels[c] < 0) {
                complete = false; // FAISS found fewer: scores were NaN
            } else if (!beyond(score_dist(scores[c]), error, best)) {
                insert({exact_dist(block, labels[c], queries, q),
                        id0 + labels[c]},
                       best);
            }
        }
        // Every row FAISS left out has a score no better than its last one.
        complete = complete &&
                (kc == block.n ||
                 beyond(score_dist(scores[kc - 1]), error, best));
        if (complete) {
            return;
        }
        for (size_t row = 0; row < block.n; row++) {
            insert({exact_dist(block, row, queries, q),
                    id0 + static_cast<int64_t>(row)},
                   best);
        }
    }

    /// True if nothing with this float distance can be among the k nearest,
    /// not even as a tie. False for NaN.
    bool beyond(
            double score_dist,
            double error,
            const std::vector<Neighbor>& best) const {
        return best.size() == k_ && score_dist - error > best.back().dist;
    }

    /// Keeps `best` sorted and at most k long; an id that is in stays once.
    void insert(const Neighbor& neighbor, std::vector<Neighbor>& best) const {
        if (best.size() == k_ && !(neighbor < best.back())) {
            return;
        }
        const auto at = std::lower_bound(best.begin(), best.end(), neighbor);
        if (at != best.end() && at->id == neighbor.id) {
            return;
        }
        const size_t position = at - best.begin();
        if (best.size() == k_) {
            best.pop_back();
        }
        best.insert(best.begin() + position, neighbor);
    }

    size_t d_, k_;
    DatasetMetric metric_;
    std::unique_ptr<faiss::IndexFlat> index_;
    std::vector<float> scores_;
    std::vector<int64_t> labels_;
};

} // namespace

GroundTruth exact_ground_truth(
        const VectorFile& base,
        size_t nq,
        const float* queries,
        size_t k,
        DatasetMetric metric,
        const GroundTruthOptions& options) {
    const size_t n = base.n(), d = base.d();
    FAISS_THROW_IF_NOT_FMT(
            k >= 1 && k <= n,
            "k is %zu, must be between 1 and the %zu rows of %s",
            k,
            n,
            base.name().c_str());
    FAISS_THROW_IF_NOT_MSG(nq >= 1, "no queries: nq is 0, must be at least 1");
    FAISS_THROW_IF_NOT_MSG(
            options.block_rows >= 1, "block_rows is 0, must be at least 1");

    Rows wanted;
    wanted.x.assign(queries, queries + nq * d);
    prepare(wanted, nq, d, metric, 0, "queries", ZeroRow::refuse);

    std::vector<std::vector<Neighbor>> best(nq);
    for (auto& list : best) {
        list.reserve(k);
    }
    Searcher searcher(d, k, metric);
    Rows block;
    for (size_t i0 = 0; i0 < n; i0 += options.block_rows) {
        const size_t rows = std::min(options.block_rows, n - i0);
        block.x.resize(rows * d);
        base.read(i0, rows, block.x.data());
        prepare(block, rows, d, metric, i0, base.name(), ZeroRow::keep);
        searcher.search_block(block, static_cast<int64_t>(i0), wanted, best);
        if (options.progress) {
            options.progress(i0 + rows);
        }
    }

    GroundTruth truth;
    truth.nq = nq;
    truth.k = k;
    truth.ids.reserve(nq * k);
    truth.dist.reserve(nq * k);
    for (const auto& list : best) {
        for (const Neighbor& neighbor : list) {
            truth.ids.push_back(neighbor.id);
            truth.dist.push_back(neighbor.dist);
        }
    }
    return truth;
}

} // namespace faiss_flash
