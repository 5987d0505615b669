#include <faiss_flash/ivf/IndexUnique.h>

#include <algorithm>
#include <cinttypes>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include <faiss_flash/ivf/vector_count.h>
#include <faiss_flash/visited_set.h>

namespace faiss_flash {

IndexUnique::IndexUnique(faiss::IndexIVF* index)
        : faiss::Index(index ? index->d : 0),
          index(index) {
    check();
    metric_type = index->metric_type;
    metric_arg = index->metric_arg;
    is_trained = index->is_trained;
    ntotal = index->ntotal;
    nentries_ = entries();
}

IndexUnique::~IndexUnique() {
    if (own_fields) {
        delete index;
    }
}

void IndexUnique::check() const {
    FAISS_THROW_IF_NOT_MSG(index, "IndexUnique: index is a null pointer");
    FAISS_THROW_IF_NOT_MSG(
            index->invlists, "IndexUnique: the index has no inverted lists");
}

size_t IndexUnique::entries() const {
    return index->invlists->compute_ntotal();
}

void IndexUnique::train(idx_t n, const float* x) {
    check();
    mixture = train_quantizer(*index, n, x, *this);
    index->train(n, x);
    is_trained = index->is_trained;
}

void IndexUnique::add(idx_t n, const float* x) {
    add_with_ids(n, x, nullptr);
}

void IndexUnique::add_with_ids(idx_t n, const float* x, const idx_t* ids) {
    check();
    add_with_policy(*index, n, x, ids, *this, mixture);
    ntotal = index->ntotal;
    nentries_ = entries();
}

/*************************************************************
 * Searching
 *************************************************************/

idx_t IndexUnique::first_k(idx_t k) const {
    const size_t n = std::max<idx_t>(ntotal, 1);
    const size_t copies = (nentries_ + n - 1) / n; // the mean, rounded up
    return copies > 1 ? k * copies + copies : k;
}

void IndexUnique::search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    check();
    FAISS_THROW_IF_NOT_FMT(
            k > 0, "k = %" PRId64 " should be above 0", (int64_t)k);
    FAISS_THROW_IF_NOT_FMT(
            n >= 0, "n = %" PRId64 " should be at least 0", (int64_t)n);
    // the queries that are not full yet
    std::vector<idx_t> open(n);
    std::iota(open.begin(), open.end(), 0);
    std::vector<float> queries(x, x + n * d), found_dis;
    std::vector<idx_t> found;
    VisitedSet met;
    for (idx_t m = first_k(k); !open.empty(); m *= 2) {
        const size_t nopen = open.size();
        found_dis.resize(nopen * m);
        found.resize(nopen * m);
        index->search(
                nopen,
                queries.data(),
                m,
                found_dis.data(),
                found.data(),
                params);
        size_t left = 0;
        for (size_t q = 0; q < nopen; q++) {
            float* dis = distances + open[q] * k;
            idx_t* ids = labels + open[q] * k;
            met.clear();
            idx_t taken = 0, r = 0;
            for (; r < m && taken < k && found[q * m + r] >= 0; r++) {
                if (met.insert(found[q * m + r])) {
                    dis[taken] = found_dis[q * m + r];
                    ids[taken++] = found[q * m + r];
                }
            }
            if (taken < k && r < m) {
                // the lists are exhausted; what FAISS puts there
                for (; taken < k; taken++) {
                    dis[taken] = found_dis[q * m + r];
                    ids[taken] = -1;
                }
            }
            if (taken < k) {
                std::copy_n(&queries[q * d], d, &queries[left * d]);
                open[left++] = open[q];
            }
        }
        open.resize(left);
    }
}

void IndexUnique::range_search(
        idx_t n,
        const float* x,
        float radius,
        faiss::RangeSearchResult* result,
        const faiss::SearchParameters* params) const {
    check();
    faiss::RangeSearchResult found(n);
    index->range_search(n, x, radius, &found, params);
    const bool keep_max = metric_type == faiss::METRIC_INNER_PRODUCT;
    // each query's best copies move to the front of its part
    std::unordered_map<idx_t, size_t> places;
    for (idx_t q = 0; q < n; q++) {
        places.clear();
        size_t end = found.lims[q];
        for (size_t r = found.lims[q]; r < found.lims[q + 1]; r++) {
            const auto at = places.emplace(found.labels[r], end);
            float& best = found.distances[at.first->second];
            if (at.second) {
                found.labels[end++] = found.labels[r];
                best = found.distances[r];
            } else if (
                    keep_max ? found.distances[r] > best
                             : found.distances[r] < best) {
                best = found.distances[r];
            }
        }
        result->lims[q] = end - found.lims[q];
    }
    result->do_allocation();
    for (idx_t q = 0; q < n; q++) {
        const size_t count = result->lims[q + 1] - result->lims[q];
        std::copy_n(
                found.labels + found.lims[q],
                count,
                result->labels + result->lims[q]);
        std::copy_n(
                found.distances + found.lims[q],
                count,
                result->distances + result->lims[q]);
    }
}

void IndexUnique::reconstruct(idx_t key, float* recons) const {
    check();
    index->reconstruct(key, recons);
}

/*************************************************************
 * Removing
 *************************************************************/

void IndexUnique::reset() {
    check();
    index->reset();
    ntotal = 0;
    nentries_ = 0;
}

size_t IndexUnique::remove_ids(const faiss::IDSelector& sel) {
    check();
    const faiss::InvertedLists& lists = *index->invlists;
    FAISS_THROW_IF_NOT_MSG(
            can_remove_from(lists),
            "this FAISS cannot remove from block inverted lists");
    FAISS_THROW_IF_NOT_MSG(
            index->direct_map.no() || entries() == (size_t)index->ntotal,
            "remove_ids is not supported with a direct map while vectors are "
            "stored in several lists");
    const idx_t before = index->ntotal;
    std::unordered_set<idx_t> removed;
    if (index->direct_map.no()) {
        for_each_id(lists, [&](idx_t id) {
            if (sel.is_member(id)) {
                removed.insert(id);
            }
        });
    }
    size_t nremove = index->remove_ids(sel);
    if (index->direct_map.no()) {
        nremove = removed.size();
        index->ntotal = before - nremove;
    }
    ntotal = index->ntotal;
    nentries_ = entries();
    return nremove;
}

} // namespace faiss_flash
