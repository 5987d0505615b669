#include <algorithm>
#include <cmath>
#include <vector>

#include <omp.h>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/cuda/policies/assign_source.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

/*************************************************************
 * The rules that look at residuals
 *************************************************************/

namespace {

struct Products {
    double norm2; ///< ‖a‖²
    double dot;   ///< a·b
};

/// ‖x − c‖² and (x − c)·r1 from the differences themselves: expanding the
/// squares would cancel where norms are large beside distances.
Products residual_products(
        const float* x,
        const float* c,
        const float* r1,
        size_t d) {
    // independent sums, so that the compiler may use vector registers
    constexpr size_t lanes = 8;
    float norm2[lanes] = {}, dot[lanes] = {};
    size_t i = 0;
    for (; i + lanes <= d; i += lanes) {
        for (size_t lane = 0; lane < lanes; lane++) {
            const float r = x[i + lane] - c[i + lane];
            norm2[lane] += r * r;
            dot[lane] += r * r1[i + lane];
        }
    }
    Products sums = {0, 0};
    for (; i < d; i++) {
        const double r = x[i] - c[i];
        sums.norm2 += r * r;
        sums.dot += r * r1[i];
    }
    for (size_t lane = 0; lane < lanes; lane++) {
        sums.norm2 += norm2[lane];
        sums.dot += dot[lane];
    }
    return sums;
}

/// One vector's view of its candidate lists, nearest first.
class Chooser {
   public:
    Chooser(const AssignmentPolicy& policy, const Model& model, float* scratch)
            : policy_(policy),
              model_(model),
              r1_(scratch) {}

    /// `lists`: policy.list_limit() entries, filled with −1.
    void choose(
            const float* x,
            const idx_t* candidates,
            size_t ncandidate,
            idx_t* lists) {
        lists[0] = candidates[0];
        if (policy_.rule == AssignmentRule::closure) {
            choose_closure(x, candidates, ncandidate, lists);
        } else {
            lists[1] = second_list(x, candidates, ncandidate);
        }
    }

   private:
    const float* centroid(idx_t list) const {
        return model_.means.data() + list * model_.d;
    }

    Products products(const float* x, idx_t list) const {
        return residual_products(x, centroid(list), r1_, model_.d);
    }

    /// r_1 into scratch; returns ‖r_1‖².
    double set_first(const float* x, idx_t first) {
        const float* c = centroid(first);
        for (size_t i = 0; i < model_.d; i++) {
            r1_[i] = x[i] - c[i];
        }
        return products(x, first).norm2;
    }

    /// air and soar; −1 where there is none
    idx_t second_list(
            const float* x,
            const idx_t* candidates,
            size_t ncandidate) {
        const double first_norm2 = set_first(x, candidates[0]);
        const bool air = policy_.rule == AssignmentRule::air;
        idx_t best = -1;
        double best_score = air && !policy_.strict
                ? (1 + policy_.lambda) * first_norm2
                : HUGE_VAL;
        for (size_t j = 1; j < ncandidate; j++) {
            const Products r = products(x, candidates[j]);
            double direction = r.dot;
            if (!air) {
                // r_1 = 0 has no direction; the term's limit is 0
                direction = first_norm2 > 0 ? r.dot * r.dot / first_norm2 : 0;
            }
            const double score = r.norm2 + policy_.lambda * direction;
            if (score < best_score) {
                best_score = score;
                best = candidates[j];
            }
        }
        return best;
    }

    void choose_closure(
            const float* x,
            const idx_t* candidates,
            size_t ncandidate,
            idx_t* lists) {
        const double slack = 1 + policy_.epsilon;
        const double bound = slack * slack * set_first(x, candidates[0]);
        int nchosen = 1;
        for (size_t j = 1; j < ncandidate && nchosen < policy_.max_lists; j++) {
            const double norm2 = products(x, candidates[j]).norm2;
            if (norm2 > bound) {
                // the next ones are farther, up to the rounding of two ways
                // to compute a distance
                continue;
            }
            const float* c = centroid(candidates[j]);
            const bool shadowed =
                    std::any_of(lists, lists + nchosen, [&](idx_t chosen) {
                        return products(c, chosen).norm2 < norm2;
                    });
            if (!shadowed) {
                lists[nchosen++] = candidates[j];
            }
        }
    }

    const AssignmentPolicy& policy_;
    const Model& model_;
    float* r1_; // (d)
};

/// Rows handled at once: bounds the memory for candidates to a few MiB.
size_t block_rows(size_t per_row) {
    return std::max<size_t>(1, std::min<size_t>(16384, (1 << 20) / per_row));
}

void assign_by_residuals(
        const AssignmentPolicy& policy,
        const Engine& engine,
        const Model& model,
        size_t n,
        const float* x,
        idx_t* lists) {
    const size_t m = std::min<size_t>(policy.candidates, model.k);
    const size_t limit = policy.list_limit();
    const size_t rows = std::min(n, block_rows(m));
    std::vector<idx_t> candidates(rows * m);
    std::vector<float> dist(rows * m);
    // one row per thread: nothing may be allocated inside
    std::vector<float> scratch(omp_get_max_threads() * model.d);

    std::fill(lists, lists + n * limit, -1);
    for (size_t i0 = 0; i0 < n; i0 += rows) {
        const int64_t count = std::min(rows, n - i0);
        const float* xb = x + i0 * model.d;
        engine.nearest(model, count, xb, m, candidates.data(), dist.data());
#pragma omp parallel for schedule(static) if (count > 64)
        for (int64_t i = 0; i < count; i++) {
            Chooser chooser(
                    policy,
                    model,
                    scratch.data() + omp_get_thread_num() * model.d);
            chooser.choose(
                    xb + i * model.d,
                    candidates.data() + i * m,
                    m,
                    lists + (i0 + i) * limit);
        }
    }
}

/*************************************************************
 * The other rules
 *************************************************************/

void assign_nearest(
        const Engine& engine,
        const Model& model,
        size_t n,
        const float* x,
        size_t m,
        idx_t* lists) {
    const size_t rows = std::min(n, block_rows(m));
    std::vector<float> dist(rows * m);
    for (size_t i0 = 0; i0 < n; i0 += rows) {
        engine.nearest(
                model,
                std::min(rows, n - i0),
                x + i0 * model.d,
                m,
                lists + i0 * m,
                dist.data());
    }
}

void assign_by_responsibility(
        const AssignmentPolicy& policy,
        const Engine& engine,
        const Model& model,
        size_t n,
        const float* x,
        idx_t* lists) {
    const size_t m = policy.max_lists;
    const double tau = policy.share_limit(model.k);
    const size_t rows = std::min(n, block_rows(m));
    std::vector<float> responsibilities(rows * m);
    for (size_t i0 = 0; i0 < n; i0 += rows) {
        const size_t count = std::min(rows, n - i0);
        idx_t* labels = lists + i0 * m;
        engine.responsibilities(
                model,
                count,
                x + i0 * model.d,
                m,
                labels,
                responsibilities.data(),
                nullptr);
        for (size_t i = 0; i < count * m; i++) {
            if (i % m != 0 && !(responsibilities[i] > tau)) {
                labels[i] = -1;
            }
        }
    }
}

/// The model as policies look at it: distances are L2. `copy` is filled
/// where it is not that already.
const Model& checked_model(
        const AssignmentPolicy& policy,
        const Model& model,
        Model& copy) {
    policy.check(model.k);
    FAISS_THROW_IF_NOT_MSG(
            policy.rule != AssignmentRule::responsibility ||
                    (model.is_mixture() && model.weights.size() == model.k),
            "AssignmentPolicy: rule = responsibility needs centroids with "
            "variances and mixing weights");
    if (model.metric == Metric::l2) {
        return model;
    }
    copy = model;
    copy.metric = Metric::l2;
    return copy;
}

} // namespace

void Engine::assign(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const float* x,
        idx_t* lists) const {
    switch (policy.rule) {
        case AssignmentRule::nearest:
        case AssignmentRule::top_m:
            assign_nearest(*this, model, n, x, policy.list_limit(), lists);
            break;
        case AssignmentRule::responsibility:
            assign_by_responsibility(policy, *this, model, n, x, lists);
            break;
        default:
            assign_by_residuals(policy, *this, model, n, x, lists);
    }
}

void assign_lists(
        const AssignmentPolicy& policy,
        const Engine& engine,
        const Model& model,
        size_t n,
        const float* x,
        idx_t* lists) {
    Model copy;
    const Model& l2 = checked_model(policy, model, copy);
    if (n > 0) {
        engine.assign(policy, l2, n, x, lists);
    }
}

void assign_lists_device(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const void* x,
        VectorType type,
        idx_t* lists,
        void* stream) {
    Model copy;
    const Model& l2 = checked_model(policy, model, copy);
    if (n > 0) {
        assign_on_device(policy, l2, n, {x, type}, lists, stream);
    }
}

} // namespace faiss_flash
