#pragma once

// Indexes and vectors for the tests of the posting-list side.

#include <tests/catch_compat.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <faiss/IndexFlat.h>
#include <faiss/impl/FaissException.h>

#include <faiss_flash/IndexIVFFlash.h>

namespace test {

using faiss_flash::AssignmentPolicy;
using faiss_flash::idx_t;

/// n vectors of d dimensions around a few centres of different width.
inline std::vector<float> clustered(size_t n, size_t d, int seed) {
    std::normal_distribution<float> normal;
    const size_t ncentre = 10;
    std::vector<float> centres(ncentre * d);
    std::mt19937 rng(99); // the same centres for every seed
    for (float& value : centres) {
        value = 3 * normal(rng);
    }
    rng.seed(seed);
    std::vector<float> x(n * d);
    for (size_t i = 0; i < n; i++) {
        const size_t centre = rng() % ncentre;
        for (size_t j = 0; j < d; j++) {
            x[i * d + j] = centres[centre * d + j] +
                    normal(rng) * (0.5f + 0.2f * centre);
        }
    }
    return x;
}

enum class Codec { flat, pq, sq8, sq16 };

inline const char* name(Codec codec) {
    const char* names[] = {"flat", "pq", "sq8", "sq16"};
    return names[(int)codec];
}

/// Tests have few vectors and little time.
inline void train_briefly(faiss::IndexIVF& index) {
    index.cp.min_points_per_centroid = 1;
    if (auto* ivfpq = dynamic_cast<faiss::IndexIVFPQ*>(&index)) {
        ivfpq->pq.cp.niter = 2;
        ivfpq->pq.cp.min_points_per_centroid = 1;
    }
}

/// A flash index seen through what its three classes have in common.
struct Flash {
    std::unique_ptr<faiss::IndexIVF> ivf;
    faiss_flash::FlashOptions* options = nullptr;
    faiss_flash::SearchCounters* counters = nullptr;
    bool* has_copies = nullptr;
    size_t (*ncopies)(const faiss::IndexIVF&) = nullptr;

    faiss::IndexIVF* operator->() const {
        return ivf.get();
    }
};

template <class T>
Flash as_flash(T* index) {
    Flash flash;
    flash.ivf.reset(index);
    flash.options = index;
    flash.counters = &index->counters;
    flash.has_copies = &index->has_copies;
    train_briefly(*index);
    flash.ncopies = [](const faiss::IndexIVF& ivf) {
        return dynamic_cast<const T&>(ivf).ncopies();
    };
    return flash;
}

/// The index FAISS has for this codec; PQ: d a multiple of 4, at least 256
/// training vectors.
inline std::unique_ptr<faiss::IndexIVF> make_stock(
        Codec codec,
        faiss::Index* quantizer,
        size_t nlist) {
    const size_t d = quantizer->d;
    const auto metric = quantizer->metric_type;
    using SQ = faiss::ScalarQuantizer;
    switch (codec) {
        case Codec::flat:
            return std::make_unique<faiss::IndexIVFFlat>(
                    quantizer, d, nlist, metric);
        case Codec::pq: {
            auto index = std::make_unique<faiss::IndexIVFPQ>(
                    quantizer, d, nlist, 4, 8, metric);
            train_briefly(*index);
            return index;
        }
        default:
            return std::make_unique<faiss::IndexIVFScalarQuantizer>(
                    quantizer,
                    d,
                    nlist,
                    codec == Codec::sq8 ? SQ::QT_8bit : SQ::QT_fp16,
                    metric);
    }
}

inline Flash make_flash(Codec codec, faiss::Index* quantizer, size_t nlist) {
    using namespace faiss_flash;
    const size_t d = quantizer->d;
    const auto metric = quantizer->metric_type;
    using SQ = faiss::ScalarQuantizer;
    switch (codec) {
        case Codec::flat:
            return as_flash(new IndexIVFFlatFlash(quantizer, d, nlist, metric));
        case Codec::pq:
            return as_flash(
                    new IndexIVFPQFlash(quantizer, d, nlist, 4, 8, metric));
        default:
            return as_flash(new IndexIVFScalarQuantizerFlash(
                    quantizer,
                    d,
                    nlist,
                    codec == Codec::sq8 ? SQ::QT_8bit : SQ::QT_fp16,
                    metric));
    }
}

/// A flat quantizer whose centroids are the first nlist vectors of x.
inline std::unique_ptr<faiss::IndexFlat> first_rows_quantizer(
        size_t d,
        size_t nlist,
        const std::vector<float>& x,
        faiss::MetricType metric = faiss::METRIC_L2) {
    auto quantizer = std::make_unique<faiss::IndexFlat>(d, metric);
    quantizer->add(nlist, x.data());
    return quantizer;
}

struct Results {
    std::vector<float> distances;
    std::vector<idx_t> labels;
};

inline Results search(
        const faiss::Index& index,
        const std::vector<float>& queries,
        idx_t k,
        const faiss::SearchParameters* params = nullptr) {
    const size_t nq = queries.size() / index.d;
    Results results{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
    index.search(
            nq,
            queries.data(),
            k,
            results.distances.data(),
            results.labels.data(),
            params);
    return results;
}

/// Equal up to rounding.
inline bool about(double a, double b, double margin = 0) {
    return std::fabs(a - b) <=
            1e-4 * std::max(std::fabs(a), std::fabs(b)) + margin;
}

/// Numbers of results that occur twice in one query's k.
inline size_t count_duplicates(const std::vector<idx_t>& labels, idx_t k) {
    size_t duplicates = 0;
    for (size_t i = 0; i < labels.size(); i += k) {
        std::set<idx_t> met;
        for (idx_t j = 0; j < k; j++) {
            duplicates +=
                    labels[i + j] >= 0 && !met.insert(labels[i + j]).second;
        }
    }
    return duplicates;
}

/// Every list's ids and codes, to see whether anything changed.
struct ListContents {
    std::vector<std::vector<idx_t>> ids;
    std::vector<std::vector<uint8_t>> codes;

    explicit ListContents(const faiss::IndexIVF& index) {
        for (size_t list = 0; list < index.nlist; list++) {
            const size_t n = index.invlists->list_size(list);
            faiss::InvertedLists::ScopedIds list_ids(index.invlists, list);
            faiss::InvertedLists::ScopedCodes list_codes(index.invlists, list);
            const idx_t* i = list_ids.get();
            const uint8_t* c = list_codes.get();
            ids.emplace_back(i, i + n);
            codes.emplace_back(c, c + n * index.code_size);
        }
    }
    bool operator==(const ListContents& other) const {
        return ids == other.ids && codes == other.codes;
    }
};

inline std::string message_of(const std::function<void()>& fn) {
    try {
        fn();
    } catch (const faiss::FaissException& e) {
        return e.what();
    }
    return "(no exception)";
}

/// fn throws a FaissException whose message contains every one of `parts`.
inline void check_throws(
        const std::function<void()>& fn,
        const std::vector<std::string>& parts) {
    const std::string message = message_of(fn);
    INFO(message);
    CHECK(message != "(no exception)");
    for (const std::string& part : parts) {
        CHECK_THAT(message, Catch::Matchers::ContainsSubstring(part));
    }
}

} // namespace test
