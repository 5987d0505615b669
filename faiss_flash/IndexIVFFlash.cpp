#include <faiss_flash/IndexIVFFlash.h>

#include <algorithm>
#include <cinttypes>
#include <memory>
#include <utility>

#include <faiss_flash/coarse_training.h>
#include <faiss_flash/ivf/check_index.h>
#include <faiss_flash/ivf/edit_lists.h>
#include <faiss_flash/ivf/find_duplicates.h>
#include <faiss_flash/ivf/flash_search.h>
#include <faiss_flash/ivf/store_vectors.h>
#include <faiss_flash/ivf/vector_count.h>
#include <faiss_flash/list_transaction.h>
#include <faiss_flash/quantizer_restore.h>

namespace faiss_flash {

const char* to_string(Trainer trainer) {
    switch (trainer) {
        case Trainer::kmeans:
            return "kmeans";
        case Trainer::gmm:
            return "gmm";
    }
    FAISS_THROW_FMT("Trainer %d is none of the enumerators", (int)trainer);
}

Trainer trainer_by_name(const std::string& name) {
    for (Trainer trainer : {Trainer::kmeans, Trainer::gmm}) {
        if (name == to_string(trainer)) {
            return trainer;
        }
    }
    FAISS_THROW_FMT("trainer '%s' is not one of: kmeans, gmm", name.c_str());
}

void SearchCounters::reset() {
    queries = 0;
    entries = 0;
    distances = 0;
}

template <class Base>
IVFFlash<Base>::IVFFlash(Base& stock) : Base(stock) {
    stock.own_fields = false;
    stock.own_invlists = false;
    has_copies = this->invlists && ncopies() > (size_t)this->ntotal;
}

template <class Base>
size_t IVFFlash<Base>::ncopies() const {
    return this->invlists->compute_ntotal();
}

template <class Base>
void IVFFlash<Base>::recount() {
    check_ready("recount", *this);
    const idx_t distinct = count_distinct_ids(*this->invlists);
    size_t slots = distinct;
    if (this->direct_map.type == faiss::DirectMap::Array) {
        // ids need not be below ntotal where some were removed
        slots = std::max<size_t>(
                this->direct_map.array.size(), largest_id(*this->invlists) + 1);
    }
    faiss::DirectMap map;
    map.set_type(this->direct_map.type, this->invlists, slots);
    this->direct_map = std::move(map);
    this->ntotal = distinct;
    has_copies = ncopies() > (size_t)distinct;
}

/*************************************************************
 * Training
 *************************************************************/

template <class Base>
void IVFFlash<Base>::train(idx_t n, const float* x) {
    check_ready("train", *this);
    policy.check(this->nlist);
    check_vectors("train", *this, n, 1, x);

    const bool ready = quantizer_is_ready(*this);
    std::unique_ptr<QuantizerRestore> restore;
    ListMixture mixture{variances, mixing_weights};
    if (!ready) {
        restore = std::make_unique<QuantizerRestore>(*this->quantizer);
        mixture = train_coarse_quantizer(*this, *this, n, x);
    }
    complete_mixture(*this, *this, n, x, mixture);
    // finds the quantizer ready and goes on with the encoder
    Base::train(n, x);

    variances = std::move(mixture.variances);
    mixing_weights = std::move(mixture.mixing_weights);
    if (restore) {
        restore->keep();
    }
}

template <class Base>
Model IVFFlash<Base>::model() const {
    return coarse_model(*this, variances, mixing_weights);
}

/*************************************************************
 * Adding
 *************************************************************/

// lists: (n, m), or nullptr: the policy's
template <class Base>
void IVFFlash<Base>::add_rows(
        const char* operation,
        idx_t n,
        const float* x,
        const idx_t* xids,
        int m,
        const idx_t* lists) {
    check_ready(operation, *this);
    check_trained(operation, *this);
    check_vectors(operation, *this, n, 0, x);
    this->direct_map.check_can_add(xids);
    if (n == 0) {
        return;
    }
    ListTransaction transaction(*this, n, xids);
    if (lists) {
        store_in_lists(transaction, *this, n, x, m, lists);
    } else {
        store_by_policy(
                transaction, *this, *this, [&] { return model(); }, n, x);
    }
    transaction.commit();
    has_copies = has_copies || transaction.has_copies();
}

template <class Base>
void IVFFlash<Base>::add_with_ids(idx_t n, const float* x, const idx_t* xids) {
    policy.check(this->nlist);
    add_rows("add", n, x, xids, 0, nullptr);
}

template <class Base>
void IVFFlash<Base>::add_to_lists(
        idx_t n,
        const float* x,
        const idx_t* xids,
        int m,
        const idx_t* lists) {
    check_own_lists("add_to_lists", *this, n, m, lists);
    add_rows("add_to_lists", n, x, xids, m, lists);
}

template <class Base>
void IVFFlash<Base>::add_core(FAISS_FLASH_ADD_CORE_PARAMETERS) {
#if FAISS_FLASH_HAS_LIST_CONTEXT
    if (inverted_list_context) {
        Base::add_core(n, x, xids, precomputed_idx, inverted_list_context);
        return;
    }
#endif
    check_own_lists("add_core", *this, n, 1, precomputed_idx);
    add_rows("add_core", n, x, xids, 1, precomputed_idx);
}

template <class Base>
void IVFFlash<Base>::add_sa_codes(
        idx_t n,
        const uint8_t* codes,
        const idx_t* xids) {
    check_ready("add_sa_codes", *this);
    FAISS_THROW_IF_NOT_FMT(
            n >= 0 && (n == 0 || codes),
            "add_sa_codes: n = %" PRId64 " codes at %p",
            (int64_t)n,
            (const void*)codes);
    this->direct_map.check_can_add(xids);
    ListTransaction transaction(*this, n, xids);
    store_sa_codes(transaction, *this, n, codes);
    transaction.commit();
}

/*************************************************************
 * Removing, updating, merging, copying
 *************************************************************/

template <class Base>
void IVFFlash<Base>::reset() {
    check_ready("reset", *this);
    this->invlists->reset(); // may throw; the rest does not
    this->direct_map.clear();
    this->ntotal = 0;
    has_copies = false;
}

/// The last copy may have gone.
template <class Base>
void IVFFlash<Base>::after_erasing() {
    // ntotal is never below the number of vectors: more entries are copies
    if (has_copies && ncopies() <= (size_t)this->ntotal) {
        has_copies = count_distinct_ids(*this->invlists) < ncopies();
    }
}

template <class Base>
size_t IVFFlash<Base>::remove_ids(const faiss::IDSelector& sel) {
    check_ready("remove_ids", *this);
    const FoundEntries found = find_entries(*this, has_copies, sel);
    ListTransaction transaction(*this);
    transaction.erase(found);
    transaction.commit();
    after_erasing();
    return found.vectors;
}

template <class Base>
void IVFFlash<Base>::update_vectors(int n, const idx_t* ids, const float* x) {
    check_ready("update_vectors", *this);
    check_trained("update_vectors", *this);
    policy.check(this->nlist);
    check_vectors("update_vectors", *this, n, 0, x);
    const LastRows rows = last_rows(*this, n, ids, x);
    const idx_t nid = rows.ids.size();
    const faiss::IDSelectorArray sel(nid, rows.ids.data());
    ListTransaction transaction(*this, nid, rows.ids.data());
    transaction.erase(find_entries(*this, has_copies, sel));
    if (nid > 0) {
        store_by_policy(
                transaction,
                *this,
                *this,
                [&] { return model(); },
                nid,
                rows.x);
    }
    transaction.commit();
    has_copies = has_copies || transaction.has_copies();
    after_erasing();
}

template <class Base>
void IVFFlash<Base>::merge_from(faiss::Index& other, idx_t add_id) {
    FAISS_THROW_IF_NOT_MSG(
            &other != this, "merge_from: other is the index itself");
    this->check_compatible_for_merge(other);
    // the same type as this one, or the check had thrown
    auto& other_flash = dynamic_cast<IVFFlash<Base>&>(other);
    check_ready("merge_from", *this);
    check_ready("merge_from", other_flash);
    move_entries(*this, other_flash, add_id);
    has_copies = has_copies || other_flash.has_copies;
    other_flash.has_copies = false;
}

template <class Base>
void IVFFlash<Base>::copy_subset_to(
        faiss::IndexIVF& other,
        FAISS_FLASH_SUBSET_TYPE subset_type,
        idx_t a1,
        idx_t a2) const {
    check_ready("copy_subset_to", *this);
    check_ready("copy_subset_to", other);
    copy_vectors(*this, has_copies, other, (int)subset_type, a1, a2);
    if (auto* flash = dynamic_cast<IVFFlash<Base>*>(&other)) {
        flash->has_copies = flash->has_copies || has_copies;
    }
}

/*************************************************************
 * What is not virtual in FAISS
 *************************************************************/

template <class Base>
void IVFFlash<Base>::set_direct_map_type(faiss::DirectMap::Type type) {
    if (type != this->direct_map.type) {
        faiss::DirectMap map;
        map.set_type(type, this->invlists, this->ntotal);
        // without copies, removal relies on slots for all entries
        FAISS_THROW_IF_NOT_MSG(
                type != faiss::DirectMap::Array || has_copies ||
                        count_distinct_ids(*this->invlists) == ncopies(),
                "set_direct_map_type: an array map is for sequential ids; "
                "some id belongs to several vectors");
        this->direct_map = std::move(map);
    }
}

template <class Base>
void IVFFlash<Base>::make_direct_map(bool new_maintain_direct_map) {
    set_direct_map_type(
            new_maintain_direct_map ? faiss::DirectMap::Array
                                    : faiss::DirectMap::NoMap);
}

template <class Base>
void IVFFlash<Base>::replace_invlists(faiss::InvertedLists* il, bool own) {
    Base::replace_invlists(il, own);
    has_copies = il && count_distinct_ids(*il) < il->compute_ntotal();
}

size_t IndexIVFPQFlash::find_duplicates(idx_t* ids, size_t* lims) const {
    return find_equal_codes(*this, has_copies, ids, lims);
}

template struct IVFFlash<faiss::IndexIVFFlat>;
template struct IVFFlash<faiss::IndexIVFPQ>;
template struct IVFFlash<faiss::IndexIVFScalarQuantizer>;

} // namespace faiss_flash
