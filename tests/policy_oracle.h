#pragma once

// Which lists a vector goes to, in plain doubles.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <faiss_flash/AssignmentPolicy.h>

namespace test {

using faiss_flash::AssignmentPolicy;
using faiss_flash::AssignmentRule;
using faiss_flash::idx_t;
using faiss_flash::Model;

/// One vector's distances and products in double precision.
struct Slow {
    const Model& model;
    const float* x;

    double dot(size_t a, size_t b) const { // r_a · r_b
        double sum = 0;
        for (size_t j = 0; j < model.d; j++) {
            sum += ((double)x[j] - model.means[a * model.d + j]) *
                    ((double)x[j] - model.means[b * model.d + j]);
        }
        return sum;
    }
    double dist(size_t c) const {
        return dot(c, c);
    }
    double between(size_t a, size_t b) const {
        return Slow{model, &model.means[a * model.d]}.dist(b);
    }
    double log_joint(size_t c) const {
        double sum = std::log((double)model.weights[c]);
        for (size_t j = 0; j < model.d; j++) {
            const size_t at = c * model.d + j;
            const double diff = (double)x[j] - model.means[at];
            const double variance =
                    model.variances[model.is_diagonal() ? at : c];
            sum -= 0.5 * (std::log(variance) + diff * diff / variance);
        }
        return sum;
    }
    /// the components in descending order of value
    std::vector<size_t> order(const std::vector<double>& value) const {
        std::vector<size_t> o(model.k);
        std::iota(o.begin(), o.end(), 0);
        std::stable_sort(o.begin(), o.end(), [&](size_t a, size_t b) {
            return value[a] > value[b];
        });
        return o;
    }
    std::vector<size_t> nearest() const {
        std::vector<double> value(model.k);
        for (size_t c = 0; c < model.k; c++) {
            value[c] = -dist(c);
        }
        return order(value);
    }
    std::vector<double> responsibilities() const {
        std::vector<double> r(model.k);
        double best = -HUGE_VAL, sum = 0;
        for (size_t c = 0; c < model.k; c++) {
            r[c] = log_joint(c);
            best = std::max(best, r[c]);
        }
        for (double& value : r) {
            value = std::exp(value - best);
            sum += value;
        }
        for (double& value : r) {
            value /= sum;
        }
        return r;
    }
};

/// The rule in plain words. `tight` becomes true where the outcome hangs on
/// less than float rounding can decide: `tolerance` bounds that of distances,
/// share_tolerance that of responsibilities.
inline std::vector<idx_t> slow_lists(
        const AssignmentPolicy& p,
        const Model& model,
        const float* x,
        bool& tight,
        double tolerance = 1e-4,
        double share_tolerance = 1e-4) {
    const Slow slow{model, x};
    auto within = [](double a, double b, double bound) {
        return std::isfinite(b) &&
                std::fabs(a - b) <=
                bound * (std::fabs(a) + std::fabs(b) + 1e-6);
    };
    auto close = [&](double a, double b) { return within(a, b, tolerance); };
    auto close_shares = [&](double a, double b) {
        return within(a, b, share_tolerance);
    };
    std::vector<size_t> order = slow.nearest();
    for (size_t i = 0; i + 1 < order.size() && i < (size_t)p.candidates; i++) {
        tight = tight || close(slow.dist(order[i]), slow.dist(order[i + 1]));
    }
    std::vector<idx_t> lists(p.list_limit(), -1);
    lists[0] = order[0];
    const size_t ncandidate = std::min<size_t>(p.candidates, model.k);
    switch (p.rule) {
        case AssignmentRule::nearest:
            break;
        case AssignmentRule::top_m:
            std::copy_n(order.begin(), p.max_lists, lists.begin());
            break;
        case AssignmentRule::responsibility: {
            const std::vector<double> r = slow.responsibilities();
            const double tau = p.tau > 0 ? p.tau : 1.0 / model.k;
            order = slow.order(r);
            lists[0] = order[0];
            for (int j = 1; j < p.max_lists; j++) {
                const double share = r[order[j]];
                tight = tight || close_shares(share, tau) ||
                        (share > tau / 2 &&
                         close_shares(share, r[order[j - 1]]));
                lists[j] = r[order[j]] > tau ? (idx_t)order[j] : -1;
            }
            break;
        }
        case AssignmentRule::closure: {
            const double reach =
                    (1 + p.epsilon) * std::sqrt(slow.dist(order[0]));
            int count = 1;
            for (size_t j = 1; j < ncandidate && count < p.max_lists; j++) {
                const double dist = slow.dist(order[j]);
                tight = tight || close(std::sqrt(dist), reach);
                bool keep = std::sqrt(dist) <= reach;
                for (int i = 0; i < count; i++) {
                    const double gap = slow.between(order[j], lists[i]);
                    tight = tight || (keep && close(gap, dist));
                    keep = keep && gap >= dist;
                }
                if (keep) {
                    lists[count++] = order[j];
                }
            }
            break;
        }
        default: {
            const bool air = p.rule == AssignmentRule::air;
            const double first = slow.dist(order[0]);
            double best = HUGE_VAL;
            for (size_t j = 1; j < ncandidate; j++) {
                const double dot = slow.dot(order[0], order[j]);
                const double direction = air ? dot
                        : first > 0          ? dot * dot / first
                                             : 0;
                const double score = slow.dist(order[j]) + p.lambda * direction;
                tight = tight || close(score, best);
                if (score < best) {
                    best = score;
                    lists[1] = order[j];
                }
            }
            if (air && !p.strict) {
                const double alone = (1 + p.lambda) * first;
                tight = tight || close(alone, best);
                if (alone <= best) {
                    lists[1] = -1;
                }
            }
        }
    }
    return lists;
}

/// Every rule, with and without its options.
inline std::vector<AssignmentPolicy> all_policies() {
    AssignmentPolicy few = AssignmentPolicy::air(0.5);
    few.candidates = 2;
    return {AssignmentPolicy::nearest(),
            AssignmentPolicy::top_m(3),
            AssignmentPolicy::responsibility(),
            AssignmentPolicy::responsibility(0.2, 3),
            AssignmentPolicy::closure(0.3, 3),
            AssignmentPolicy::closure(0, 2),
            AssignmentPolicy::air(),
            AssignmentPolicy::air(0.5, true),
            AssignmentPolicy::air(0),
            AssignmentPolicy::soar(),
            AssignmentPolicy::soar(3),
            few};
}

} // namespace test
