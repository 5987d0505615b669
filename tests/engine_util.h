#pragma once

// Engines and instruction sets to run a test on, and random problems.

#include <hwy/targets.h>

#include <functional>
#include <map>

#include <faiss_flash/cpu/kernels.h>
#include <tests/engine_checks.h>

namespace test {

using faiss_flash::cpu_engine;
using faiss_flash::get_engine;
using faiss_flash::reference_engine;

/// The instruction sets this CPU has and the kernels were compiled for, as
/// Highway's bits by the name of the kernel that runs.
inline const std::map<std::string, int64_t>& instruction_sets() {
    static const std::map<std::string, int64_t> sets = [] {
        std::map<std::string, int64_t> found;
        const int64_t all = hwy::SupportedTargets();
        const std::string best = faiss_flash::cpu_target_name();
        for (int64_t rest = all; rest != 0; rest &= rest - 1) {
            const int64_t bit = rest & -rest;
            hwy::GetChosenTarget().Update(bit);
            found.emplace(faiss_flash::cpu_target_name(), bit);
        }
        hwy::GetChosenTarget().Update(all);
        REQUIRE(faiss_flash::cpu_target_name() == best);
        REQUIRE(found.count(best) == 1);
        return found;
    }();
    return sets;
}

/// f() once with each instruction set's kernels.
inline void on_each_instruction_set(const std::function<void()>& f) {
    for (const auto& set : instruction_sets()) {
        hwy::GetChosenTarget().Update(set.second);
        INFO("instruction set " << set.first);
        REQUIRE(faiss_flash::cpu_target_name() == set.first);
        f();
    }
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

/// f(engine) for the reference and for the CPU engine on each instruction
/// set.
inline void on_each_engine(const std::function<void(const Engine&)>& f) {
    {
        INFO("engine reference");
        f(reference_engine());
    }
    on_each_instruction_set([&] {
        INFO("engine cpu");
        f(cpu_engine());
    });
}

inline void check_all(const Engine& engine, const Problem& p, size_t m) {
    check_hard(engine, p);
    check_nearest(engine, p, m);
    if (p.model.is_mixture()) {
        check_soft(engine, p);
        check_responsibilities(engine, p, m);
    }
}

/// Random vectors and centroids; as a mixture where `scale` > 0.
inline Problem random_problem(
        size_t n,
        size_t k,
        size_t d,
        Metric metric,
        bool weighted,
        double scale,
        uint32_t seed) {
    Problem p = make_problem(
            "random n = " + std::to_string(n) + ", k = " + std::to_string(k) +
                    ", d = " + std::to_string(d) +
                    (metric == Metric::l2 ? ", L2" : ", product") +
                    (weighted ? ", weighted" : ""),
            centroid_model(normal_rows(k, d, seed), metric),
            normal_rows(n, d, seed + 1),
            weighted ? random_weights(n, seed + 2) : std::vector<float>());
    return scale > 0 ? as_mixture(std::move(p), scale, seed + 3) : p;
}

} // namespace test
