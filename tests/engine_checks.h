#pragma once

// What every engine must deliver, checked against all pairs in double
// precision.

#include <numeric>
#include <set>

#include <faiss_flash/engine/engine.h>
#include <tests/engine_problem.h>

namespace test {

using faiss_flash::Engine;
using faiss_flash::idx_t;
using faiss_flash::Pass;
using faiss_flash::Statistics;

inline Statistics accumulate(
        const Engine& engine,
        const Problem& p,
        Pass pass) {
    const auto source = faiss_flash::array_source(
            p.n(),
            p.d(),
            p.rows.x.data(),
            p.weights.empty() ? nullptr : p.weights.data());
    Statistics stats;
    engine.open(*source)->accumulate(p.model, pass, stats);
    return stats;
}

struct Nearest {
    std::vector<idx_t> labels;
    std::vector<float> dist;
};

inline Nearest nearest(const Engine& engine, const Problem& p, size_t m) {
    Nearest out;
    out.labels.assign(p.n() * m, -7);
    out.dist.assign(p.n() * m, NAN);
    engine.nearest(
            p.model,
            p.n(),
            p.rows.x.data(),
            m,
            out.labels.data(),
            out.dist.data());
    return out;
}

/// The m nearest: distinct, best first, exact values, none missed.
inline void check_nearest(const Engine& engine, const Problem& p, size_t m) {
    INFO(p.name << ", nearest, m = " << m);
    const Nearest found = nearest(engine, p, m);
    Worst gap, value;
    size_t disorder = 0, invalid = 0;
    std::vector<double> sorted(p.k());
    for (size_t i = 0; i < p.n(); i++) {
        for (size_t c = 0; c < p.k(); c++) {
            sorted[c] = p.cost(i, c);
        }
        std::partial_sort(sorted.begin(), sorted.begin() + m, sorted.end());
        double slack = 0; // those in front may have been swapped as well
        std::set<idx_t> seen;
        for (size_t j = 0; j < m; j++) {
            const idx_t label = found.labels[i * m + j];
            const float dist = found.dist[i * m + j];
            if (label < 0 || label >= (idx_t)p.k() ||
                !seen.insert(label).second) {
                invalid++;
                continue;
            }
            slack = std::max(
                    slack, p.gap_bound(i, label) + p.value_bound(i, label));
            gap.see(p.cost(i, label) - sorted[j], slack, i, j);
            const double exact = p.l2() ? p.cost(i, label) : -p.cost(i, label);
            value.see(std::abs(dist - exact), p.value_bound(i, label), i, j);
            if (j > 0) {
                // equal in single precision: by number, or as they truly are
                const float before = found.dist[i * m + j - 1];
                const idx_t number = found.labels[i * m + j - 1];
                const bool ordered = p.l2() ? before < dist : before > dist;
                const bool tie = before == dist &&
                        (number < label ||
                         p.cost(i, number) < p.cost(i, label));
                disorder += !ordered && !tie;
            }
        }
    }
    CHECK(invalid == 0);
    CHECK(disorder == 0);
    CHECK_WORST(gap);
    CHECK_WORST(value);
}

/// A hard pass: the nearest centroid of each vector, and statistics that are
/// those of the assignment that nearest() shows.
inline void check_hard(const Engine& engine, const Problem& p) {
    INFO(p.name << ", hard pass");
    check_nearest(engine, p, 1);
    const Nearest found = nearest(engine, p, 1);
    const Statistics stats = accumulate(engine, p, Pass::hard);

    const size_t n = p.n(), k = p.k(), d = p.d();
    std::vector<double> sums(k * d), sums_of_abs(k * d), counts(k), energy(k);
    std::vector<double> energy_bound(k);
    std::vector<int64_t> members(k);
    double objective = 0, objective_bound = 0, total = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t c = found.labels[i];
        const double w = p.weight(i);
        for (size_t j = 0; j < d; j++) {
            sums[c * d + j] += w * p.rows.row(i)[j];
            sums_of_abs[c * d + j] += std::abs(w * p.rows.row(i)[j]);
        }
        counts[c] += w;
        energy[c] += w * p.dist[i * k + c];
        energy_bound[c] += w * p.dist_bound(i, c);
        members[c]++;
        objective += p.l2() ? p.cost(i, c) : -p.cost(i, c);
        objective_bound += p.value_bound(i, c);
        total += w;
    }
    // double sums of n terms
    const double rounding = std::ldexp(n + 4.0, -53);
    Worst worst_sum, worst_count, worst_energy;
    for (size_t c = 0; c < k; c++) {
        for (size_t j = c * d; j < (c + 1) * d; j++) {
            worst_sum.see(
                    std::abs(stats.sums[j] - sums[j]),
                    rounding * sums_of_abs[j],
                    c,
                    j - c * d);
        }
        worst_count.see(
                std::abs(stats.counts[c] - counts[c]), rounding * counts[c], c);
        worst_energy.see(
                std::abs(stats.energy[c] - energy[c]),
                energy_bound[c] + rounding * energy[c],
                c);
    }
    CHECK_WORST(worst_sum);
    CHECK_WORST(worst_count);
    CHECK_WORST(worst_energy);
    CHECK(stats.members == members);
    CHECK(stats.n == (int64_t)n);
    CHECK(stats.entries == (int64_t)n);
    CHECK(stats.dropped_mass == 0);
    CHECK(std::abs(stats.total_weight - total) <= rounding * total);
    CHECK(std::abs(stats.objective - objective) <=
          objective_bound + rounding * std::abs(objective));
}

/// The mixture's densities of one vector in double precision.
struct Densities {
    std::vector<double> r; ///< p(k | x), (k)
    double log_likelihood = 0;
    /// Error of a component's log density when its distance is computed in
    /// single precision, at most, over the components that matter.
    double log_error = 0;
    /// Relative error this gives a responsibility: both its own density and
    /// the sum are off, and the single-precision exponential and quotient
    /// add a few roundings. Leaving out 10⁻⁶ lifts the others by as much.
    double relative_error = 0;
};

inline Densities densities(const Problem& p, size_t i) {
    const double pi = std::acos(-1.0);
    const size_t k = p.k();
    Densities out;
    out.r.resize(k);
    std::vector<double> half(k); // Σ_j (x − μ)² / 2σ²
    double top = -HUGE_VAL;
    for (size_t c = 0; c < k; c++) {
        double logs = 0;
        if (p.model.is_diagonal()) {
            for (size_t j = 0; j < p.d(); j++) {
                const double variance = p.model.variances[c * p.d() + j];
                half[c] += p.square(i, c, j) / (2 * variance);
                logs += std::log(2 * pi * variance);
            }
        } else {
            const double variance = p.model.variances[c];
            half[c] = p.dist[i * k + c] / (2 * variance);
            logs = p.d() * std::log(2 * pi * variance);
        }
        out.r[c] = std::log(double(p.model.weights[c])) - 0.5 * logs - half[c];
        top = std::max(top, out.r[c]);
    }
    double sum = 0;
    for (double& r : out.r) {
        r = std::exp(r - top);
        sum += r;
    }
    out.log_likelihood = top + std::log(sum);
    double largest = 0;
    for (size_t c = 0; c < k; c++) {
        out.r[c] /= sum;
        if (out.r[c] > 1e-12) {
            largest = std::max(largest, half[c]);
        }
    }
    out.log_error = p.float_error() * largest;
    out.relative_error = std::expm1(2 * out.log_error) + std::ldexp(1, -20) +
            1.01 * faiss_flash::max_dropped_mass;
    return out;
}

struct Responsibilities {
    std::vector<idx_t> labels;
    std::vector<float> r;
    std::vector<float> log_likelihood;
};

inline Responsibilities responsibilities(
        const Engine& engine,
        const Problem& p,
        size_t m) {
    Responsibilities out;
    out.labels.assign(p.n() * m, -7);
    out.r.assign(p.n() * m, NAN);
    out.log_likelihood.assign(p.n(), NAN);
    engine.responsibilities(
            p.model,
            p.n(),
            p.rows.x.data(),
            m,
            out.labels.data(),
            out.r.data(),
            out.log_likelihood.data());
    return out;
}

/// What may be left out of one vector, counting the error of its densities.
inline double dropped_bound(const Densities& exact) {
    return faiss_flash::max_dropped_mass * std::exp(2 * exact.log_error);
}

/// The m largest responsibilities and log p(x).
inline void check_responsibilities(
        const Engine& engine,
        const Problem& p,
        size_t m) {
    INFO(p.name << ", responsibilities, m = " << m);
    const Responsibilities found = responsibilities(engine, p, m);
    Worst value, rank, likelihood, left_out;
    size_t invalid = 0, disorder = 0;
    for (size_t i = 0; i < p.n(); i++) {
        const Densities exact = densities(p, i);
        std::vector<double> sorted = exact.r;
        std::partial_sort(
                sorted.begin(),
                sorted.begin() + m,
                sorted.end(),
                std::greater<double>());
        std::set<idx_t> seen;
        double held = 0;
        for (size_t j = 0; j < m; j++) {
            const idx_t label = found.labels[i * m + j];
            const float r = found.r[i * m + j];
            if (label == -1) { // left out: the last ones, and 0
                invalid += r != 0;
                invalid += j + 1 < m && found.labels[i * m + j + 1] != -1;
                continue;
            }
            if (label < 0 || label >= (idx_t)p.k() ||
                !seen.insert(label).second) {
                invalid++;
                continue;
            }
            held += exact.r[label];
            // below 1e-12 all are equal: nothing to rank
            rank.see(
                    sorted[j] - exact.r[label],
                    2 * exact.relative_error * sorted[j] + 1e-12,
                    i,
                    j);
            value.see(
                    std::abs(r - exact.r[label]),
                    exact.relative_error * exact.r[label] + 1e-12,
                    i,
                    j);
            if (j > 0) {
                const float before = found.r[i * m + j - 1];
                const idx_t number = found.labels[i * m + j - 1];
                const bool tie = before == r &&
                        (number < label || exact.r[number] > exact.r[label]);
                disorder += !(before > r || tie);
            }
        }
        if (found.labels[i * m + m - 1] == -1) {
            left_out.see(1 - held - 1e-12, dropped_bound(exact), i);
        }
        likelihood.see(
                std::abs(found.log_likelihood[i] - exact.log_likelihood),
                exact.log_error + exact.relative_error +
                        std::ldexp(std::abs(exact.log_likelihood), -23),
                i);
    }
    CHECK(invalid == 0);
    CHECK(disorder == 0);
    CHECK_WORST(value);
    CHECK_WORST(rank);
    CHECK_WORST(likelihood);
    CHECK_WORST(left_out);
}

/// A soft pass: every sum of responsibilities, what was left out of it, and
/// log p.
/// @param even_drop  an engine that leaves out components one by one leaves
///                   out at most a k-th of the bound of each; others keep to
///                   the bound for all components together
inline void check_soft(
        const Engine& engine,
        const Problem& p,
        bool even_drop = true) {
    INFO(p.name << ", soft pass");
    const size_t n = p.n(), k = p.k(), d = p.d();
    const size_t per = p.model.is_diagonal() ? d : 1; // energies of a component
    const Statistics stats = accumulate(engine, p, Pass::soft);
    REQUIRE(stats.energy.size() == k * per);
    // the m = k responsibilities show which components a pass keeps
    const Responsibilities kept = responsibilities(engine, p, k);
    const Responsibilities first = responsibilities(engine, p, 1);

    std::vector<double> sums(k * d), sums_bound(k * d), counts(k);
    std::vector<double> counts_bound(k), energy(k * per);
    std::vector<double> energy_bound(k * per);
    std::vector<int64_t> members(k);
    double likelihood = 0, likelihood_bound = 0, total = 0;
    Worst dropped;
    for (size_t i = 0; i < n; i++) {
        const Densities exact = densities(p, i);
        const double w = p.weight(i);
        for (size_t c = 0; c < k; c++) {
            const double r = w * exact.r[c];
            // kept: its relative error; left out: its share of the mass
            const double bound = exact.relative_error * r +
                    std::min(r, w * dropped_bound(exact) / (even_drop ? k : 1));
            counts[c] += r;
            counts_bound[c] += bound;
            // distances are single precision, one dimension's is double
            if (per == 1) {
                const double dist = p.dist[i * k + c];
                energy[c] += r * dist;
                energy_bound[c] += bound * dist + r * p.dist_bound(i, c);
            }
            for (size_t j = 0; j < d; j++) {
                if (per > 1) {
                    energy[c * d + j] += r * p.square(i, c, j);
                    energy_bound[c * d + j] += bound * p.square(i, c, j);
                }
                const double value = p.rows.row(i)[j];
                sums[c * d + j] += r * value;
                sums_bound[c * d + j] += bound * std::abs(value);
            }
        }
        members[first.labels[i]]++;
        likelihood += w * exact.log_likelihood;
        likelihood_bound += w * (exact.log_error + exact.relative_error) +
                std::ldexp(std::abs(w * exact.log_likelihood), -50);
        total += w;

        std::vector<bool> is_kept(k);
        for (size_t j = 0; j < k; j++) {
            const idx_t label = kept.labels[i * k + j];
            if (label >= 0) {
                is_kept[label] = true;
            }
        }
        double mass = 0;
        for (size_t c = 0; c < k; c++) {
            mass += is_kept[c] ? 0 : exact.r[c];
        }
        dropped.see(
                mass,
                stats.dropped_mass * std::exp(2 * exact.log_error) * 1.001,
                i);
    }

    Worst worst_sum, worst_count, worst_energy;
    const double rounding = std::ldexp(n * k + 4.0, -53);
    for (size_t c = 0; c < k; c++) {
        worst_count.see(
                std::abs(stats.counts[c] - counts[c]),
                counts_bound[c] + 1e-300,
                c);
        for (size_t j = c * per; j < (c + 1) * per; j++) {
            worst_energy.see(
                    std::abs(stats.energy[j] - energy[j]),
                    energy_bound[j] + 1e-300,
                    c,
                    j - c * per);
        }
        for (size_t j = c * d; j < (c + 1) * d; j++) {
            worst_sum.see(
                    std::abs(stats.sums[j] - sums[j]),
                    sums_bound[j] + 1e-300,
                    c,
                    j - c * d);
        }
    }
    CHECK_WORST(worst_sum);
    CHECK_WORST(worst_count);
    CHECK_WORST(worst_energy);
    if (even_drop) { // others may keep different components in each call
        CHECK_WORST(dropped);
    }
    CHECK(stats.members == members);
    CHECK(stats.n == (int64_t)n);
    CHECK(stats.dropped_mass <= faiss_flash::max_dropped_mass);
    CHECK(stats.entries >= (int64_t)n);
    CHECK(stats.entries <= (int64_t)(n * k));
    CHECK(std::abs(stats.total_weight - total) <= rounding * total);
    // responsibilities of one vector add up to 1, less what is left out
    const double count =
            std::accumulate(stats.counts.begin(), stats.counts.end(), 0.0);
    CHECK(std::abs(count - total) <= faiss_flash::max_dropped_mass * total);
    CHECK(std::abs(stats.log_likelihood - likelihood) <= likelihood_bound);
}

} // namespace test
