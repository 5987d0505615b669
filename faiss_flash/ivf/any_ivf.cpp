#include <faiss_flash/ivf/any_ivf.h>

#include <algorithm>
#include <cinttypes>
#include <memory>
#include <vector>

#include <faiss/IndexIVFPQR.h>

#include <faiss_flash/check_input.h>
#include <faiss_flash/coarse_training.h>
#include <faiss_flash/ivf/check_index.h>
#include <faiss_flash/ivf/store_vectors.h>
#include <faiss_flash/quantizer_restore.h>

namespace faiss_flash {

namespace {

void check_index(const faiss::IndexIVF& index, idx_t n, const float* x) {
    FAISS_THROW_IF_NOT_MSG(index.quantizer, "the index has no quantizer");
    FAISS_THROW_IF_NOT_MSG(index.invlists, "the index has no inverted lists");
    FAISS_THROW_IF_NOT_FMT(
            n >= 0, "n = %" PRId64 " should be at least 0", (int64_t)n);
    FAISS_THROW_IF_NOT_MSG(n == 0 || x, "x is a null pointer");
}

/** Stands in for the quantizer while an index adds: its nearest centroid of
 * a row is the list that was chosen for that row. This reaches every kind of
 * index, whatever it does with the list.
 */
class ChosenLists : public faiss::Index {
   public:
    /// @param x      the rows that will be added, (n, d)
    /// @param lists  (n)
    ChosenLists(
            faiss::IndexIVF& index,
            idx_t n,
            const float* x,
            const idx_t* lists)
            : faiss::Index(*index.quantizer),
              index_(index),
              quantizer_(*index.quantizer),
              n_(n),
              x_(x),
              lists_(lists) {
        index_.quantizer = this;
    }
    ~ChosenLists() override {
        index_.quantizer = &quantizer_;
    }
    ChosenLists(const ChosenLists&) = delete;
    ChosenLists& operator=(const ChosenLists&) = delete;

    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters*) const override {
        const idx_t first = (x - x_) / d;
        FAISS_THROW_IF_NOT_MSG(
                k == 1 && first >= 0 && first + n <= n_,
                "this index asks its quantizer for more than the lists of "
                "the vectors it adds");
        std::copy_n(lists_ + first, n, labels);
        std::fill_n(distances, n, 0.0f);
    }

    void reconstruct(idx_t key, float* recons) const override {
        quantizer_.reconstruct(key, recons);
    }
    void compute_residual(const float* x, float* residual, idx_t key)
            const override {
        quantizer_.compute_residual(x, residual, key);
    }
    void add(idx_t, const float*) override {
        FAISS_THROW_MSG("vectors are added to the index, not its quantizer");
    }
    void reset() override {
        add(0, nullptr);
    }

   private:
    faiss::IndexIVF& index_;
    faiss::Index& quantizer_;
    const idx_t n_;
    const float* x_;
    const idx_t* lists_;
};

void check_can_copy(const faiss::IndexIVF& index) {
    FAISS_THROW_IF_NOT_MSG(
            index.direct_map.no(),
            "a direct map cannot hold vectors in several lists: set "
            "policy to AssignmentPolicy::nearest() or call "
            "set_direct_map_type(DirectMap::NoMap)");
    FAISS_THROW_IF_NOT_MSG(
            !dynamic_cast<const faiss::IndexIVFPQR*>(&index) &&
                    !dynamic_cast<const faiss::IndexIVFFlatDedup*>(&index),
            "IndexIVFPQR and IndexIVFFlatDedup keep one record per vector: "
            "set policy to AssignmentPolicy::nearest()");
}

/// The copies of some vectors, as the rows of one add.
struct Copies {
    std::vector<float> x;
    std::vector<idx_t> ids, lists;

    void add_to(faiss::IndexIVF& index) const {
        const ChosenLists chosen(index, ids.size(), x.data(), lists.data());
        index.add_with_ids(ids.size(), x.data(), ids.data());
    }
};

} // namespace

ListMixture train_quantizer(
        faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        const FlashOptions& options) {
    check_index(index, n, x);
    FAISS_THROW_IF_NOT_MSG(n > 0, "train: n = 0 should be at least 1");
    options.policy.check(index.nlist);
    check_finite("train", n, index.d, x);
    ListMixture mixture;
    if (quantizer_is_ready(index)) {
        complete_mixture(index, options, n, x, mixture);
        return mixture;
    }
    QuantizerRestore restore(*index.quantizer);
    mixture = train_coarse_quantizer(index, options, n, x);
    complete_mixture(index, options, n, x, mixture);
    restore.keep();
    return mixture;
}

void add_with_policy(
        faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        const idx_t* ids,
        const FlashOptions& options,
        const ListMixture& mixture) {
    check_index(index, n, x);
    const AssignmentPolicy& policy = options.policy;
    policy.check(index.nlist);
    check_trained("add", index);
    check_finite("add", n, index.d, x);
    if (policy.rule == AssignmentRule::nearest) {
        index.add_with_ids(n, x, ids);
        return;
    }
    const size_t m = policy.list_limit();
    if (m > 1) {
        check_can_copy(index);
    }
    const size_t d = index.d;
    const idx_t block = rows_per_block(d, m);
    PolicyLists all_lists(
            options,
            coarse_model(index, mixture.variances, mixture.mixing_weights),
            n,
            x);
    for (idx_t i0 = 0; i0 < n; i0 += block) {
        faiss::InterruptCallback::check();
        const idx_t count = std::min(block, n - i0);
        const float* xb = x + i0 * d;
        const idx_t* lists = all_lists.of(i0);
        Copies copies;
        for (size_t e = 0; e < count * m; e++) {
            if (lists[e] >= 0) {
                const idx_t i = e / m;
                copies.x.insert(copies.x.end(), xb + i * d, xb + (i + 1) * d);
                copies.ids.push_back(ids ? ids[i0 + i] : index.ntotal + i);
                copies.lists.push_back(lists[e]);
            }
        }
        const idx_t ntotal = index.ntotal;
        copies.add_to(index);
        index.ntotal = ntotal + count;
    }
}

} // namespace faiss_flash
