#pragma once

#include <faiss_flash/ivf/any_ivf.h>

namespace faiss_flash {

/** Any faiss::IndexIVF, trained by this library, with vectors in several
 * lists, searched without duplicates: for the IVF indexes that have no class
 * of their own here (FastScan, RaBitQ, additive quantizers, ...).
 *
 * A search asks the index for k·c results, c a little above the mean number
 * of copies per vector, keeps each id's best one, and asks again for twice
 * as many for those queries that have fewer than k left, until they are full
 * or their probed lists exhausted. So k distinct results come whenever the
 * probed lists hold k vectors, and each has the distance of its best copy.
 * The price is the larger k and the distances of copies, which are computed;
 * IndexIVFFlatFlash and its sisters avoid both.
 *
 * Search-time parameters of the index (nprobe, ...) stay in `index`; search
 * parameters are passed on to it. What the index does not implement (range
 * search in FastScan of FAISS 1.7.3, reconstruction without a direct map)
 * throws what it throws.
 *
 * `ntotal` counts vectors. Ids should be at least 0: FAISS's −1 says that
 * there is no further result. Vectors have to be added, and removed, through
 * this class or add_with_policy.
 */
struct IndexUnique : faiss::Index, FlashOptions {
    faiss::IndexIVF* index = nullptr;
    bool own_fields = false; ///< whether the destructor deletes `index`

    /// Filled by train(): what makes the quantizer's centroids a mixture.
    ListMixture mixture;

    /// @param index  may already hold vectors, one or several copies of each
    explicit IndexUnique(faiss::IndexIVF* index);
    IndexUnique() = default;
    ~IndexUnique() override;
    IndexUnique(const IndexUnique&) = delete;
    IndexUnique& operator=(const IndexUnique&) = delete;

    /// train_quantizer, then the index's own training of the codes.
    void train(idx_t n, const float* x) override;
    /// add_with_policy.
    void add(idx_t n, const float* x) override;
    void add_with_ids(idx_t n, const float* x, const idx_t* ids) override;

    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override;

    /// Of each id within the radius its best copy, in the order in which the
    /// index returned the ids.
    void range_search(
            idx_t n,
            const float* x,
            float radius,
            faiss::RangeSearchResult* result,
            const faiss::SearchParameters* params = nullptr) const override;

    /// As the index reconstructs; it needs a direct map, made after adding.
    void reconstruct(idx_t key, float* recons) const override;

    void reset() override;

    /// Removes every copy. @return the number of vectors. Throws where the
    /// index has a direct map while there are copies, and for block inverted
    /// lists (FastScan) of a FAISS that cannot remove from them.
    size_t remove_ids(const faiss::IDSelector& sel) override;

   private:
    size_t entries() const;
    idx_t first_k(idx_t k) const;
    void check() const;

    /// posting-list entries when vectors were last added or removed
    size_t nentries_ = 0;
};

} // namespace faiss_flash
