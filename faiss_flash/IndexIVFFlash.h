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
 * constructors are theirs. Metrics: L2 and inner product. Every call of
 * IndexIVF works here, and all copies of a vector come and go together; the
 * table in docs/index_ivf.md goes through them one by one.
 *
 * - `ntotal` and return values count vectors, ncopies() the posting-list
 *   entries.
 * - While has_copies, search returns no id twice and computes no vector's
 *   distance twice in one query, in every parallel mode. The check is by id
 *   and comes before the distance: of an id's copies, or of several vectors
 *   added under one id, the first one met decides.
 * - Results under policy `nearest` with the same centroids are FAISS's own:
 *   ids, distances, order.
 * - Codes of residuals (PQ, SQ) are relative to each copy's own centroid.
 * - `cp` holds the clustering parameters, as in FAISS.
 * - Errors are faiss::FaissException and leave the index as it was.
 *
 * An id should belong to one vector. Where the caller adds several vectors
 * under one id, ntotal counts each; removing or updating the id takes all of
 * them, and while there are copies they count as VectorCount
 * (ivf/vector_count.h) says: the entries in the list that has most of them,
 * which may be too few. recount() then puts ntotal right, an id counting as
 * one vector. As in FAISS, add() without ids continues at ntotal, which
 * after a removal meets ids that are there already (not so with an array
 * map).
 *
 * Limits that no subclass can lift, because FAISS calls no virtual function
 * there:
 * - faiss::clone_index, faiss::write_index (use faiss_flash::write_index)
 *   and index_cpu_to_gpu see the base class, whose searches return copies as
 *   duplicates.
 * - What changes the lists behind the index's back (replace_invlists called
 *   through a pointer to IndexIVF, ivflib::set_invlist_range,
 *   SlidingIndexWindow, lists filled by hand) leaves has_copies, and often
 *   ntotal, wrong: call recount() afterwards.
 * - Called through a pointer to IndexIVF or IndexIVFPQ, set_direct_map_type
 *   that fails leaves half a map, find_duplicates counts copies, and in
 *   FAISS 1.7.3 add_sa_codes may stop half way and range_search_preassigned
 *   returns duplicates in parallel modes 1 and 2.
 * - IndexShardsIVF adds through add_core, which stores every vector in the
 *   one list it is told.
 *
 * Inverted lists with packed codes (BlockInvertedLists) are FastScan's and
 * throw.
 *
 * Tests: tests/test_index.cpp, tests/test_bad_input.cpp,
 * tests/test_contract_*.cpp, tests/test_model.cpp.
 */
template <class Base>
struct IVFFlash : Base, FlashOptions {
    using Base::Base;
    /// Take over a stock index: its lists, quantizer and parameters move
    /// here, and `stock` no longer owns them. It has copies if there are more
    /// entries than ntotal; where ntotal counted copies, call recount().
    explicit IVFFlash(Base& stock);
    IVFFlash() = default;

    /// Filled by train(): what makes the quantizer's centroids a mixture.
    /// A MixtureQuantizer's own come before these.
    std::vector<float> variances;      ///< (nlist), or (nlist, d) if diagonal
    std::vector<float> mixing_weights; ///< (nlist)

    /// Whether some vector may be stored in more than one list. Set by what
    /// adds copies, cleared when the last copy goes.
    bool has_copies = false;

    mutable SearchCounters counters;

    /// posting-list entries, copies included; O(nlist)
    size_t ncopies() const;

    /// Count again after the lists were changed behind the index's back: sets
    /// ntotal (an id is one vector) and has_copies, and rebuilds the direct
    /// map if there is one. O(entries).
    void recount();

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

    /** Store each vector in the caller's own lists, whatever the policy.
     * All or nothing.
     *
     * @param xids   (n), or nullptr
     * @param lists  (n, m), the preferred list first; −1: none. A list may
     *               come once in a row. A row of −1 makes a vector that
     *               counts and is nowhere found, as in FAISS.
     */
    void add_to_lists(
            idx_t n,
            const float* x,
            const idx_t* xids,
            int m,
            const idx_t* lists);

    /// add_to_lists with one list each, FAISS's way. With a context (FAISS
    /// from 1.8 on, lists of the user's own) it is FAISS's own add_core.
    void add_core(FAISS_FLASH_ADD_CORE_PARAMETERS FAISS_FLASH_NO_LIST_CONTEXT)
            override;

    /// One copy of each, in the list the code names: what sa_encode gives.
    void add_sa_codes(idx_t n, const uint8_t* codes, const idx_t* xids)
            FAISS_FLASH_ADD_SA_CODES_OVERRIDE;

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
    /// Obeys a selector, too.
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

    /** Remove all copies of the ids the selector takes. Works with every
     * direct map and every selector; an array map keeps slots of −1, and add
     * never gives their ids again.
     *
     * O(entries); with a direct map, no copies, and an IDSelectorArray or
     * IDSelectorBatch, in the number of ids. Needs memory for twice the
     * codes it removes.
     *
     * @return  the number of vectors
     */
    size_t remove_ids(const faiss::IDSelector& sel) override;

    /** Replace all copies of the ids by what the policy gives for x. Needs a
     * direct map; every id has to be there. Of an id given several times the
     * last row counts. O(entries) while has_copies.
     *
     * @param ids  (n)
     * @param x    (n, d)
     */
    void update_vectors(int n, const idx_t* ids, const float* x) override;

    /// Move the other index's vectors here. Neither may have a direct map.
    void merge_from(faiss::Index& other, idx_t add_id) override;

    /// Copy some of the vectors; ivf/edit_lists.h explains the subset types.
    /// The other index may be a stock one, whose searches then return copies
    /// as duplicates.
    void copy_subset_to(
            faiss::IndexIVF& other,
            FAISS_FLASH_SUBSET_TYPE subset_type,
            idx_t a1,
            idx_t a2) const override;

    // Not virtual in FAISS; as there, but for what they leave behind.

    /// A failure leaves the old map.
    void set_direct_map_type(faiss::DirectMap::Type type);
    void make_direct_map(bool new_maintain_direct_map = true);
    /// Finds out about copies in the new lists; ntotal remains.
    void replace_invlists(faiss::InvertedLists* il, bool own = false);

   private:
    void add_rows(
            const char* operation,
            idx_t n,
            const float* x,
            const idx_t* xids,
            int m,
            const idx_t* lists);
    void after_erasing();
    faiss::InvertedListScanner* make_scanner(
            SearchCounters& counts,
            FAISS_FLASH_SCANNER_PARAMETERS) const;
    void count_search(
            idx_t n,
            const SearchCounters& counts,
            faiss::IndexIVFStats& found,
            faiss::IndexIVFStats* stats) const;
};

struct IndexIVFFlatFlash : IVFFlash<faiss::IndexIVFFlat> {
    using IVFFlash::IVFFlash;
};
struct IndexIVFPQFlash : IVFFlash<faiss::IndexIVFPQ> {
    using IVFFlash::IVFFlash;
    /// Groups of vectors with equal codes, as the base class's, which is not
    /// virtual; each vector counts in its lowest list only.
    /// @param ids   (ntotal)
    /// @param lims  (ntotal + 1): group g is ids[lims[g], lims[g + 1])
    /// @return      the number of groups
    size_t find_duplicates(idx_t* ids, size_t* lims) const;
};
struct IndexIVFScalarQuantizerFlash : IVFFlash<faiss::IndexIVFScalarQuantizer> {
    using IVFFlash::IVFFlash;
};

extern template struct IVFFlash<faiss::IndexIVFFlat>;
extern template struct IVFFlash<faiss::IndexIVFPQ>;
extern template struct IVFFlash<faiss::IndexIVFScalarQuantizer>;

} // namespace faiss_flash
