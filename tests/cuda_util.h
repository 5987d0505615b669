#pragma once

// What tests of the CUDA engine share.

#include <cstdio>

#include <tests/engine_checks.h>

namespace test {

using faiss_flash::cuda_engine;

/// Says so where there is no device; CTest then counts the case as skipped.
inline bool no_device() {
    if (cuda_engine()) {
        return false;
    }
    std::puts("SKIPPED: no CUDA device");
    return true;
}

/// A random mixture, see as_mixture().
inline Problem mixture(
        size_t n,
        size_t k,
        size_t d,
        double scale,
        bool weighted,
        uint32_t seed) {
    const std::string name = "n = " + std::to_string(n) +
            ", k = " + std::to_string(k) + ", d = " + std::to_string(d) +
            ", scale " + std::to_string(scale);
    Problem p = make_problem(
            name,
            centroid_model(normal_rows(k, d, seed)),
            normal_rows(n, d, seed + 1),
            weighted ? random_weights(n, seed + 2) : std::vector<float>());
    return as_mixture(std::move(p), scale, seed + 3);
}

} // namespace test
