#pragma once

// What the model-based tests know about an index: the vectors they may add,
// what these look like after coding, and which ids hold which of them.
// Nothing about lists, but that a residual code depends on one.

#include <tests/index_util.h>

#include <map>
#include <sstream>

#include <faiss/impl/AuxIndexStructures.h>

namespace test {

/// Thrown where an index and the model disagree.
struct Mismatch {
    std::string what;
};

inline void expect(bool ok, const std::string& what) {
    if (!ok) {
        throw Mismatch{what};
    }
}

/// Vectors to choose from, queries, and a trained index without vectors.
template <class T>
struct Pool {
    static constexpr size_t d = 8, nlist = 5, nvector = 40, nquery = 3;
    static constexpr float margin = 2e-3f;

    std::vector<float> x = clustered(nvector, d, 11);
    std::vector<float> q = clustered(nquery, d, 12);
    std::unique_ptr<faiss::IndexFlat> quantizer;
    std::unique_ptr<T> trained;
    std::vector<float> decoded;  ///< (nvector, nlist, d)
    std::vector<float> distance; ///< (nquery, nvector, nlist)

    template <class Make>
    Pool(faiss::MetricType metric, const Make& make) {
        const std::vector<float> xt = clustered(400, d, 13);
        quantizer = first_rows_quantizer(d, nlist, xt, metric);
        trained = make(quantizer.get());
        train_briefly(*trained);
        trained->policy = AssignmentPolicy::responsibility(0.02, 3);
        trained->train(400, xt.data());
        decode_all();
    }

    bool similarity() const {
        return trained->metric_type == faiss::METRIC_INNER_PRODUCT;
    }

    /// The trained index with lists of its own.
    std::unique_ptr<T> fresh() const {
        auto index = std::make_unique<T>(*trained);
        index->invlists =
                new faiss::ArrayInvertedLists(nlist, index->code_size);
        index->own_invlists = true;
        index->nprobe = nlist;
        return index;
    }

    /// Whether y is what `vector` may come back as.
    bool is_decoded(size_t vector, const float* y) const {
        for (size_t list = 0; list < nlist; list++) {
            const float* z = &decoded[(vector * nlist + list) * d];
            bool same = true;
            for (size_t j = 0; j < d; j++) {
                same = same && about(y[j], z[j], margin);
            }
            if (same) {
                return true;
            }
        }
        return false;
    }

    bool is_distance(size_t query, size_t vector, float dist) const {
        const float* z = &distance[(query * nvector + vector) * nlist];
        return std::any_of(
                z, z + nlist, [&](float y) { return about(dist, y, margin); });
    }

    /// A distance that the vector's copies do not exceed.
    float worst(size_t query, size_t vector) const {
        const float* z = &distance[(query * nvector + vector) * nlist];
        return similarity() ? *std::min_element(z, z + nlist)
                            : *std::max_element(z, z + nlist);
    }

    /// Clearly better.
    bool better(float a, float b) const {
        const float slack =
                margin + 1e-4f * std::max(std::fabs(a), std::fabs(b));
        return similarity() ? a > b + slack : a < b - slack;
    }

   private:
    void decode_all() {
        const size_t bytes = trained->sa_code_size();
        std::vector<uint8_t> code(bytes);
        decoded.resize(nvector * nlist * d);
        distance.resize(nquery * nvector * nlist);
        for (size_t v = 0; v < nvector; v++) {
            for (size_t list = 0; list < nlist; list++) {
                const idx_t list_no = list;
                float* y = &decoded[(v * nlist + list) * d];
                trained->encode_vectors(
                        1, &x[v * d], &list_no, code.data(), true);
                trained->sa_decode(1, code.data(), y);
                for (size_t i = 0; i < nquery; i++) {
                    double sum = 0;
                    for (size_t j = 0; j < d; j++) {
                        const double a = q[i * d + j], b = y[j];
                        sum += similarity() ? a * b : (a - b) * (a - b);
                    }
                    distance[(i * nvector + v) * nlist + list] = sum;
                }
            }
        }
    }
};

/// The index that the tests believe in: for each id the vectors of the pool
/// that were added under it, usually one.
struct Model {
    std::map<idx_t, std::vector<size_t>> vectors;

    size_t size() const {
        size_t n = 0;
        for (auto& entry : vectors) {
            n += entry.second.size();
        }
        return n;
    }
    void add(idx_t id, size_t vector) {
        vectors[id].push_back(vector);
    }
    bool has(idx_t id) const {
        return vectors.count(id) > 0;
    }
    idx_t max_id() const {
        return vectors.empty() ? -1 : vectors.rbegin()->first;
    }
    /// Removes what the selector takes; returns how many vectors.
    size_t remove(const faiss::IDSelector& sel) {
        size_t n = 0;
        for (auto it = vectors.begin(); it != vectors.end();) {
            if (sel.is_member(it->first)) {
                n += it->second.size();
                it = vectors.erase(it);
            } else {
                ++it;
            }
        }
        return n;
    }
};

/// Results of one query against brute force over the decoded vectors.
/// @param by_id  whether an id comes once, however many vectors it has
template <class T>
void check_results(
        const Pool<T>& pool,
        const Model& model,
        const faiss::IDSelector* sel,
        bool by_id,
        size_t query,
        idx_t k,
        const idx_t* labels,
        const float* distances) {
    std::map<idx_t, size_t> times;
    size_t nfound = 0;
    for (; nfound < (size_t)k && labels[nfound] != -1; nfound++) {
        const idx_t id = labels[nfound];
        const std::string who = "id " + std::to_string(id);
        auto known = model.vectors.find(id);
        expect(known != model.vectors.end(), who + " is not in the model");
        expect(!sel || sel->is_member(id), who + " is not selected");
        times[id]++;
        expect(times[id] <= (by_id ? 1 : known->second.size()),
               who + " comes too often");
        expect(std::any_of(
                       known->second.begin(),
                       known->second.end(),
                       [&](size_t vector) {
                           return pool.is_distance(
                                   query, vector, distances[nfound]);
                       }),
               who + " has another distance");
        expect(nfound == 0 ||
                       !pool.better(distances[nfound], distances[nfound - 1]),
               who + " is out of order");
    }
    size_t expected = 0;
    for (auto& entry : model.vectors) {
        if (sel && !sel->is_member(entry.first)) {
            continue;
        }
        expected += by_id ? 1 : entry.second.size();
        if (nfound == (size_t)k && times.count(entry.first) == 0) {
            // of several vectors the one met first decides
            float worst = pool.worst(query, entry.second[0]);
            for (size_t vector : entry.second) {
                const float other = pool.worst(query, vector);
                worst = pool.better(worst, other) ? other : worst;
            }
            expect(!pool.better(worst, distances[k - 1]),
                   "id " + std::to_string(entry.first) + " is missing");
        }
    }
    expect(nfound == std::min<size_t>(k, expected),
           std::to_string(nfound) + " results instead of " +
                   std::to_string(std::min<size_t>(k, expected)));
    for (size_t j = nfound; j < (size_t)k; j++) {
        expect(labels[j] == -1, "a result after -1");
    }
}

} // namespace test
