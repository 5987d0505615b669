#pragma once

// What tests of the CUDA engine share.

#include <cstring>
#include <vector>

#include <tests/engine_checks.h>
#include <tests/no_device.h>

namespace test {

using faiss_flash::cuda_engine;

/// All that passes leave behind, to the last bit.
inline bool same_bytes(const Statistics& a, const Statistics& b) {
    auto same = [](const auto& x, const auto& y) {
        return x.size() == y.size() &&
                memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0;
    };
    return same(a.sums, b.sums) && same(a.counts, b.counts) &&
            same(a.energy, b.energy) && same(a.members, b.members) &&
            a.objective == b.objective &&
            a.log_likelihood == b.log_likelihood &&
            a.total_weight == b.total_weight && a.entries == b.entries &&
            a.dropped_mass == b.dropped_mass;
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

/// Two soft passes: the second takes its thresholds from the first.
inline std::vector<Statistics> two_passes(
        const Problem& p,
        const faiss_flash::EngineOptions& options = {}) {
    const auto source = faiss_flash::array_source(
            p.n(),
            p.d(),
            p.rows.x.data(),
            p.weights.empty() ? nullptr : p.weights.data());
    const auto set = cuda_engine()->open(*source, options);
    std::vector<Statistics> stats(2);
    for (Statistics& s : stats) {
        set->accumulate(p.model, Pass::soft, s);
    }
    return stats;
}

/// Soft passes give the same bytes in so many further runs, and with the rows
/// streamed through so many bytes of device memory.
inline void check_repeats(const Problem& p, int runs, size_t device_bytes) {
    const auto resident = two_passes(p);
    for (int run = 0; run < runs; run++) {
        const auto again = two_passes(p);
        REQUIRE(same_bytes(resident[0], again[0]));
        REQUIRE(same_bytes(resident[1], again[1]));
    }
    faiss_flash::EngineOptions options;
    options.max_device_bytes = device_bytes;
    const auto streamed = two_passes(p, options);
    CHECK(same_bytes(resident[0], streamed[0]));
    CHECK(same_bytes(resident[1], streamed[1]));
}

} // namespace test
