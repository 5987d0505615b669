#pragma once

#include <atomic>
#include <functional>

#include <faiss/IndexFlat.h>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// A flat coarse quantizer that counts the centroid distances it computes,
/// where it computes them. Searching is IndexFlat's own.
struct CountingQuantizer : faiss::IndexFlat {
    mutable std::atomic<size_t> distances{0};
    /// Called after every search, from the searching thread, if set. Only
    /// for single-threaded callers such as faiss::Clustering.
    std::function<void()> after_search;

    CountingQuantizer(size_t d, faiss::MetricType metric)
            : faiss::IndexFlat(d, metric) {}

    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* dist,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override {
        faiss::IndexFlat::search(n, x, k, dist, labels, params);
        distances += static_cast<size_t>(n) * static_cast<size_t>(ntotal);
        if (after_search) {
            after_search();
        }
    }
};

} // namespace faiss_flash
