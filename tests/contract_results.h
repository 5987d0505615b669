#pragma once

// Results of searches compared.

#include <tests/slow_search.h>

#include <faiss/impl/AuxIndexStructures.h>

namespace test {

inline bool same_set(const idx_t* a, const idx_t* b, idx_t k) {
    return std::set<idx_t>(a, a + k) == std::set<idx_t>(b, b + k);
}

struct AllInRange {
    std::vector<std::set<idx_t>> ids;
    std::vector<size_t> counts;

    explicit AllInRange(const faiss::RangeSearchResult& result) {
        for (size_t i = 0; i < result.nq; i++) {
            ids.emplace_back(
                    result.labels + result.lims[i],
                    result.labels + result.lims[i + 1]);
            counts.push_back(result.lims[i + 1] - result.lims[i]);
        }
    }
    bool unique() const {
        for (size_t i = 0; i < ids.size(); i++) {
            if (ids[i].size() != counts[i]) {
                return false;
            }
        }
        return true;
    }
};

} // namespace test
