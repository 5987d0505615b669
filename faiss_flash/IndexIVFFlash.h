#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

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
    /// before and those a selector refused. (Under polysemous filtering a
    /// Hamming comparison counts as well.)
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
 * constructors are theirs. Metrics: L2 and inner product.
 *
 * - `ntotal` counts vectors, ncopies() the posting-list entries.
 * - While has_copies, search returns no id twice and computes no vector's
 *   distance twice in one query. The check is by id and comes before the
 *   distance: of an id's copies, or of several vectors added under one id,
 *   the first one met decides.
 * - Results under policy `nearest` with the same centroids are FAISS's own:
 *   ids, distances, order.
 * - Codes of residuals (PQ, SQ) are relative to each copy's own centroid.
 * - `cp` holds the clustering parameters, as in FAISS.
 *
 * Operations of IndexIVF that would give a wrong answer for vectors with
 * copies throw: remove_ids, update_vectors, copy_subset_to, find_duplicates,
 * storing a vector in several lists while there is a direct map, parallel
 * modes 1 and 2. Errors are faiss::FaissException and leave the index as it
 * was.
 *
 * Limits that no subclass can lift, because FAISS calls no virtual function
 * there: faiss::clone_index, faiss::write_index (use
 * faiss_flash::write_index), index_cpu_to_gpu and the functions of ivflib
 * that copy lists see the base class, whose searches return copies as
 * duplicates; in FAISS 1.7.3, range_search_preassigned called through a
 * pointer to IndexIVF does not check parallel_mode, nor does
 * IndexIVFPQ::find_duplicates called through one to IndexIVFPQ check for
 * copies, in any version. After replace_invlists, has_copies is the
 * caller's to set. IndexShardsIVF adds through add_core, which stores every
 * vector in the one list it is told.
 *
 * Tests: tests/test_index.cpp, tests/test_bad_input.cpp.
 */
template <class Base>
struct IVFFlash : Base, FlashOptions {
    using Base::Base;
    /// Take over a stock index: its lists, quantizer and parameters move
    /// here, and `stock` no longer owns them.
    explicit IVFFlash(Base& stock);
    IVFFlash() = default;

    /// Filled by train(): what makes the quantizer's centroids a mixture.
    /// A MixtureQuantizer's own come before these.
    std::vector<float> variances;
    std::vector<float> mixing_weights;

    /// true once some vector has been stored in more than one list
    bool has_copies = false;

    mutable SearchCounters counters;

    /// posting-list entries, copies included; O(nlist)
    size_t ncopies() const;

    /// The quantizer's centroids with variances and mixing weights, where
    /// they are known. Read from the quantizer on every call: O(nlist·d).
    Model model() const;

    /// Train the coarse quantizer, then the codes as the base class does. A
    /// quantizer that already holds nlist vectors is kept as it is; if the
    /// policy then needs variances and nobody gave them, one shared variance
    /// and mixing weights are estimated from at most 256·nlist of the n
    /// vectors.
    void train(idx_t n, const float* x) override;

    /** Store each vector in the lists the policy gives. All or nothing: if
     * it throws the index is as it was.
     *
     * Policy `nearest` asks the quantizer, as FAISS does. The other rules
     * compare with every centroid by L2, whatever kind of index the
     * quantizer is.
     */
    void add_with_ids(idx_t n, const float* x, const idx_t* xids) override;

    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override;

    void search_and_reconstruct(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            float* recons,
            const faiss::SearchParameters* params = nullptr) const override;

    void range_search(
            idx_t n,
            const float* x,
            float radius,
            faiss::RangeSearchResult* result,
            const faiss::SearchParameters* params = nullptr) const override;

#if FAISS_FLASH_HAS_SEARCH1
    void search1(
            const float* x,
            faiss::ResultHandler& handler,
            faiss::SearchParameters* params = nullptr) const override;
#endif

    void search_preassigned(
            idx_t n,
            const float* x,
            idx_t k,
            const idx_t* assign,
            const float* centroid_dis,
            float* distances,
            idx_t* labels,
            bool store_pairs,
            const faiss::IVFSearchParameters* params = nullptr,
            faiss::IndexIVFStats* stats = nullptr) const override;

    void range_search_preassigned(
            idx_t n,
            const float* x,
            float radius,
            const idx_t* keys,
            const float* coarse_dis,
            faiss::RangeSearchResult* result,
            bool store_pairs = false,
            const faiss::IVFSearchParameters* params = nullptr,
            faiss::IndexIVFStats* stats = nullptr) const
            FAISS_FLASH_RANGE_PREASSIGNED_OVERRIDE;

    /// The base class's scanner, with counting and, while has_copies,
    /// without duplicates. For one thread.
    faiss::InvertedListScanner* get_InvertedListScanner(
            FAISS_FLASH_SCANNER_PARAMETERS) const override;

    void reset() override;
    size_t remove_ids(const faiss::IDSelector& sel) override;
    /// Asks for policy `nearest` as well: it stores one copy of each vector.
    void update_vectors(int n, const idx_t* ids, const float* x) override;
    void merge_from(faiss::Index& other, idx_t add_id) override;
    void copy_subset_to(
            faiss::IndexIVF& other,
            FAISS_FLASH_SUBSET_TYPE subset_type,
            idx_t a1,
            idx_t a2) const override;

   private:
    void check_metric() const;
    void check_queries(idx_t n, const float* x) const;
    void check_parallel_mode(bool range) const;
    void check_lists(size_t n, const idx_t* lists) const;
    void check_no_copies(const char* operation) const;
};

struct IndexIVFFlatFlash : IVFFlash<faiss::IndexIVFFlat> {
    using IVFFlash::IVFFlash;
};
struct IndexIVFPQFlash : IVFFlash<faiss::IndexIVFPQ> {
    using IVFFlash::IVFFlash;
    /// As the base class's, which is not virtual; throws while has_copies.
    size_t find_duplicates(idx_t* ids, size_t* lims) const;
};
struct IndexIVFScalarQuantizerFlash : IVFFlash<faiss::IndexIVFScalarQuantizer> {
    using IVFFlash::IVFFlash;
};

extern template struct IVFFlash<faiss::IndexIVFFlat>;
extern template struct IVFFlash<faiss::IndexIVFPQ>;
extern template struct IVFFlash<faiss::IndexIVFScalarQuantizer>;

} // namespace faiss_flash
