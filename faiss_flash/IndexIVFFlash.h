#pragma once

#include <atomic>
#include <string>
#include <utility>

#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexScalarQuantizer.h>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/GMMClustering.h>

namespace faiss_flash {

/// How an index finds its centroids.
enum class Trainer { kmeans, gmm };

const char* to_string(Trainer trainer);
/// Inverse of to_string; throws on an unknown name.
Trainer trainer_by_name(const std::string& name);

/// Work done by searches over one index since the last reset. Adding is
/// atomic; a copy of an index starts from zero.
struct SearchCounters {
    std::atomic<size_t> queries{0};
    /// posting-list entries passed over, copies counted
    std::atomic<size_t> entries{0};
    /// distances computed: entries less those whose vector the query had met
    /// before and those a selector refused
    std::atomic<size_t> distances{0};

    SearchCounters() = default;
    SearchCounters(const SearchCounters&) {}
    SearchCounters& operator=(const SearchCounters&) {
        return *this;
    }
    void reset();
};

/// What a flash index knows beyond its FAISS base class; set before train().
struct FlashOptions {
    Trainer trainer = Trainer::gmm;
    GMMParameters gmm;       ///< used when trainer is gmm
    AssignmentPolicy policy; ///< may be changed between adds
    std::string engine = "auto";
};

/** A FAISS IVF index whose coarse quantizer is trained by FlashClustering or
 * GMMClustering and whose vectors live in one or more posting lists.
 *
 * `Base` is faiss::IndexIVFFlat, IndexIVFPQ or IndexIVFScalarQuantizer; the
 * constructors are theirs.
 *
 * - `ntotal` counts vectors, ncopies() the posting-list entries.
 * - search returns no id twice and computes no vector's distance twice in
 *   one query. The check is by id and comes before the distance: an id that
 *   the caller added several times is returned once, with the distance of
 *   the first copy met.
 * - Results under policy `nearest` with the same centroids are FAISS's own:
 *   ids, distances, order.
 * - `cp` holds the clustering parameters, as in FAISS.
 *
 * Operations of IndexIVF that would give a wrong answer for vectors with
 * copies throw: remove_ids, update_vectors, copy_subset_to, adding
 * several copies while there is a direct map, parallel modes 1 and 2.
 */
template <class Base>
struct IVFFlash : Base, FlashOptions {
    using Base::Base;
    /// Take over a stock index: its lists, quantizer and parameters move
    /// here, and `stock` no longer owns them.
    explicit IVFFlash(Base& stock);
    IVFFlash() = default;

    /// Filled by train(): what makes the quantizer's centroids a mixture.
    std::vector<float> variances;
    std::vector<float> mixing_weights;

    /// true once some vector has been stored in more than one list
    bool has_copies = false;

    mutable SearchCounters counters;

    /// posting-list entries, copies included; O(nlist)
    size_t ncopies() const;

    /// The quantizer's centroids with variances and mixing weights.
    Model model() const;

    /// Train the coarse quantizer, then the codes as the base class does. A
    /// quantizer that already holds nlist vectors is kept as it is.
    void train(idx_t n, const float* x) override;

    /// Store each vector in the lists the policy gives. All or nothing: if
    /// it throws the index is as it was.
    void add_with_ids(idx_t n, const float* x, const idx_t* xids) override;

    faiss::InvertedListScanner* get_InvertedListScanner(
            FAISS_FLASH_SCANNER_PARAMETERS) const override;

    void search_preassigned(
            idx_t n,
            const float* x,
            idx_t k,
            const idx_t* assign,
            const float* centroid_dis,
            float* distances,
            idx_t* labels,
            bool store_pairs,
            const faiss::IVFSearchParameters* params,
            faiss::IndexIVFStats* stats) const override;

    void range_search(
            idx_t n,
            const float* x,
            float radius,
            faiss::RangeSearchResult* result,
            const faiss::SearchParameters* params) const override;

    void reset() override;
    size_t remove_ids(const faiss::IDSelector& sel) override;
    void update_vectors(int n, const idx_t* ids, const float* x) override;
    void merge_from(faiss::Index& other, idx_t add_id) override;
    void copy_subset_to(
            faiss::IndexIVF& other,
            FAISS_FLASH_SUBSET_TYPE subset_type,
            idx_t a1,
            idx_t a2) const override;

   private:
    void train_quantizer(idx_t n, const float* x);
};

struct IndexIVFFlatFlash : IVFFlash<faiss::IndexIVFFlat> {
    using IVFFlash::IVFFlash;
};
struct IndexIVFPQFlash : IVFFlash<faiss::IndexIVFPQ> {
    using IVFFlash::IVFFlash;
};
struct IndexIVFScalarQuantizerFlash
        : IVFFlash<faiss::IndexIVFScalarQuantizer> {
    using IVFFlash::IVFFlash;
};

} // namespace faiss_flash
