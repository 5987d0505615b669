#pragma once

// What tests of the CUDA engine share.

#include <cstdlib>
#include <cstring>
#include <vector>

#include <faiss_flash/cuda/device.h>
#include <tests/engine_checks.h>
#include <tests/no_device.h>

namespace test {

using faiss_flash::cuda_engine;

/// Whether FAISS_FLASH_TEST_SMALL is set: cases then take shapes that are done
/// in seconds under compute-sanitizer, or leave out what needs many rows.
inline bool small_shapes() {
    return std::getenv("FAISS_FLASH_TEST_SMALL") != nullptr;
}

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

/// run() with its n-th allocation failing, for every n that it has: it either
/// finds another way, or says that memory is short and works the next time.
template <class Run>
void fail_each_allocation(Run&& run) {
    for (int n = 1; n < 1000; n++) {
        INFO("allocation " << n << " fails");
        faiss_flash::fail_device_allocation(n);
        try {
            run();
        } catch (const faiss::FaissException& e) {
            const std::string message = e.what();
            INFO(message);
            CHECK((message.find("max_device_bytes") != std::string::npos ||
                   message.find("cudaMalloc") != std::string::npos));
        }
        const bool all = faiss_flash::fail_device_allocation(0) > 0;
        run();
        if (all) {
            CHECK(n > 1);
            return;
        }
    }
    FAIL("more allocations than there can be");
}

} // namespace test
