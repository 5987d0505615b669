#pragma once

// Searches by plain loops, and what they are compared with.

#include <tests/index_util.h>

#include <utility>

namespace test {

/// One query's results by plain loops: entries of the probed lists in
/// order, each id's first copy, FAISS's own distance for one code.
struct SlowSearch {
    const faiss::IndexIVF& index;
    /// FAISS's class itself, over the same lists
    std::unique_ptr<faiss::InvertedListScanner> scanner;
    size_t entries = 0, distances = 0;

    SlowSearch(const faiss::IndexIVF& index, const faiss::IndexIVF& stock)
            : index(index) {
#if FAISS_FLASH_FAISS_VERSION >= 11100
        scanner.reset(stock.get_InvertedListScanner(false, nullptr, nullptr));
#else
        scanner.reset(stock.get_InvertedListScanner(false, nullptr));
#endif
    }

    struct Probes {
        std::vector<idx_t> lists;
        std::vector<float> dist;
    };

    Probes probes(const float* query, size_t nprobe) const {
        Probes p{std::vector<idx_t>(nprobe), std::vector<float>(nprobe)};
        index.quantizer->search(
                1, query, nprobe, p.dist.data(), p.lists.data());
        return p;
    }

    using Found = std::vector<std::pair<float, idx_t>>;

    /// best first; `max_codes` as the FAISS in use understands it
    Found run(
            const float* query,
            size_t nprobe,
            const faiss::IDSelector* sel = nullptr,
            size_t max_codes = 0) {
        Found found;
        std::set<idx_t> met;
        scanner->set_query(query);
        const Probes p = probes(query, nprobe);
        size_t scanned = 0;
        for (size_t i = 0; i < nprobe; i++) {
            const idx_t list = p.lists[i];
            if (list < 0) {
                continue;
            }
            size_t n = index.invlists->list_size(list);
            if (max_codes && FAISS_FLASH_FAISS_VERSION >= 10704) {
                n = std::min(n, max_codes - scanned);
            }
            scanner->set_list(list, p.dist[i]);
            faiss::InvertedLists::ScopedIds ids(index.invlists, list);
            faiss::InvertedLists::ScopedCodes codes(index.invlists, list);
            entries += n;
            const size_t before = found.size();
            for (size_t j = 0; j < n; j++) {
                if ((!sel || sel->is_member(ids[j])) &&
                    met.insert(ids[j]).second) {
                    found.emplace_back(
                            scanner->distance_to_code(
                                    codes.get() + j * index.code_size),
                            ids[j]);
                }
            }
            scanned += FAISS_FLASH_FAISS_VERSION >= 11402
                    ? found.size() - before
                    : n;
            if (max_codes && scanned >= max_codes) {
                break;
            }
        }
        distances += found.size();
        const bool best_is_large =
                index.metric_type == faiss::METRIC_INNER_PRODUCT;
        std::sort(found.begin(), found.end(), [&](auto& a, auto& b) {
            return best_is_large ? a.first > b.first : a.first < b.first;
        });
        return found;
    }

    /// Whether `labels` and `dist` (k) are the k best of `found`, up to
    /// rounding.
    static bool agrees(
            const Found& found,
            const idx_t* labels,
            const float* dist,
            idx_t k) {
        std::set<idx_t> seen;
        for (idx_t j = 0; j < k; j++) {
            if (j >= (idx_t)found.size()) {
                if (labels[j] != -1) {
                    return false;
                }
                continue;
            }
            auto same_id = [&](auto& f) { return f.second == labels[j]; };
            const auto it = std::find_if(found.begin(), found.end(), same_id);
            if (!seen.insert(labels[j]).second || it == found.end() ||
                !about(dist[j], found[j].first) || !about(dist[j], it->first)) {
                return false;
            }
        }
        return true;
    }
};

/// A trained flash index, a stock one with the same parameters, vectors.
struct SearchFixture {
    static constexpr size_t d = 16, nlist = 20, nb = 1500, nq = 40;
    std::vector<float> xb = clustered(nb, d, 1);
    std::vector<float> xq = clustered(nq, d, 2);
    std::unique_ptr<faiss::IndexFlat> quantizer;
    Flash flash;
    std::unique_ptr<faiss::IndexIVF> stock;

    SearchFixture(
            Codec codec,
            faiss::MetricType metric,
            AssignmentPolicy policy)
            : quantizer(first_rows_quantizer(d, nlist, xb, metric)),
              flash(make_flash(codec, quantizer.get(), nlist)),
              stock(make_stock(codec, quantizer.get(), nlist)) {
        flash.options->policy = policy;
        flash->train(nb, xb.data());
        stock->train(nb, xb.data());
        flash->nprobe = stock->nprobe = 6;
    }
    void add() {
        flash->add(nb, xb.data());
        flash.counters->reset();
    }
};

inline faiss::MetricType any_metric() {
    return GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
}

inline Codec any_codec() {
    return GENERATE(Codec::flat, Codec::pq, Codec::sq8, Codec::sq16);
}

} // namespace test
