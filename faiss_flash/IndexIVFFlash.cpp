#include <faiss_flash/IndexIVFFlash.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <utility>

#include <faiss_flash/check_input.h>
#include <faiss_flash/coarse_training.h>
#include <faiss_flash/counting_scanner.h>
#include <faiss_flash/engine/engine.h>
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

/*************************************************************
 * Checks
 *************************************************************/

template <class Base>
void IVFFlash<Base>::check_metric() const {
    FAISS_THROW_IF_NOT_FMT(
            this->metric_type == faiss::METRIC_L2 ||
                    this->metric_type == faiss::METRIC_INNER_PRODUCT,
            "metric_type = %d should be METRIC_L2 (%d) or "
            "METRIC_INNER_PRODUCT (%d)",
            (int)this->metric_type,
            (int)faiss::METRIC_L2,
            (int)faiss::METRIC_INNER_PRODUCT);
    FAISS_THROW_IF_NOT_MSG(this->quantizer, "the index has no quantizer");
    FAISS_THROW_IF_NOT_MSG(this->invlists, "the index has no inverted lists");
}

namespace {

void check_vectors(const char* what, idx_t n, idx_t least, const float* x) {
    FAISS_THROW_IF_NOT_FMT(
            n >= least,
            "%s: n = %" PRId64 " vectors should be at least %" PRId64,
            what,
            (int64_t)n,
            (int64_t)least);
    FAISS_THROW_IF_NOT_FMT(n == 0 || x, "%s: x is a null pointer", what);
}

} // namespace

template <class Base>
void IVFFlash<Base>::check_queries(idx_t n, const float* x) const {
    check_metric();
    FAISS_THROW_IF_NOT_MSG(
            this->is_trained, "search: the index is not trained; call train()");
    check_vectors("search", n, 0, x);
    check_finite("search", n, this->d, x);
}

// FAISS discovers these inside parallel regions, where 1.7.3 dies of them.

template <class Base>
void IVFFlash<Base>::check_parallel_mode(bool range) const {
    const int mode = range
            ? this->parallel_mode
            : this->parallel_mode & ~this->PARALLEL_MODE_NO_HEAP_INIT;
    FAISS_THROW_IF_NOT_FMT(
            mode >= 0 && mode <= (range ? 2 : 3),
            "parallel_mode = %d is not supported here: set it to 0",
            this->parallel_mode);
    FAISS_THROW_IF_NOT_FMT(
            !has_copies || mode == 0 || mode == 3,
            "parallel_mode = %d would return the copies of a vector as "
            "several results: set it to 0%s",
            this->parallel_mode,
            range ? "" : " or 3");
}

template <class Base>
void IVFFlash<Base>::check_lists(size_t n, const idx_t* lists) const {
    for (size_t i = 0; i < n; i++) {
        FAISS_THROW_IF_NOT_FMT(
                lists[i] < (idx_t)this->nlist,
                "assign[%zd] = %" PRId64 " should be below nlist = %zd",
                i,
                (int64_t)lists[i],
                this->nlist);
    }
}

template <class Base>
void IVFFlash<Base>::check_no_copies(const char* operation) const {
    FAISS_THROW_IF_NOT_FMT(
            !has_copies,
            "%s is not supported while vectors are stored in several lists "
            "(ntotal = %" PRId64 " vectors, %zd entries)",
            operation,
            (int64_t)this->ntotal,
            ncopies());
}

/*************************************************************
 * Training
 *************************************************************/

template <class Base>
void IVFFlash<Base>::train(idx_t n, const float* x) {
    check_metric();
    policy.check(this->nlist);
    check_vectors("train", n, 1, x);
    check_finite("train", n, this->d, x);

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

template <class Base>
void IVFFlash<Base>::add_with_ids(idx_t n, const float* x, const idx_t* xids) {
    check_metric();
    FAISS_THROW_IF_NOT_MSG(
            this->is_trained, "add: the index is not trained; call train()");
    policy.check(this->nlist);
    check_vectors("add", n, 0, x);
    if (n == 0) {
        return;
    }
    check_finite("add", n, this->d, x);

    const bool nearest = policy.rule == AssignmentRule::nearest;
    const size_t m = policy.list_limit();
    // rows in flight, which bounds the memory for copies and codes: at most
    // 32768 entries and 32 MiB of vectors
    const size_t entries = std::min<size_t>(32768, (8 << 20) / (size_t)this->d);
    const idx_t block = std::max<size_t>(1, entries / m);
    std::vector<idx_t> lists(nearest ? n : std::min(n, block) * m);
    Model centroids;
    const Engine* chosen = nullptr;
    if (nearest) {
        // in one call, so that rounding is FAISS's as well
        this->quantizer->assign(n, x, lists.data());
    } else {
        centroids = model();
        centroids.metric = Metric::l2;
        chosen = &get_engine(engine);
    }

    ListTransaction transaction(*this, n, xids);
    for (idx_t i0 = 0; i0 < n; i0 += block) {
        faiss::InterruptCallback::check();
        const idx_t count = std::min(block, n - i0);
        const float* xb = x + i0 * this->d;
        if (nearest) {
            transaction.store(count, xb, 1, lists.data() + i0);
        } else {
            assign_lists(policy, *chosen, centroids, count, xb, lists.data());
            transaction.store(count, xb, m, lists.data());
        }
        if (this->verbose) {
            printf("Added %" PRId64 " / %" PRId64 " vectors\n",
                   (int64_t)(i0 + count),
                   (int64_t)n);
        }
    }
    transaction.commit();
    has_copies = has_copies || transaction.has_copies();
}

/*************************************************************
 * Searching
 *************************************************************/

template <class Base>
faiss::InvertedListScanner* IVFFlash<Base>::get_InvertedListScanner(
        FAISS_FLASH_SCANNER_PARAMETERS) const {
    const faiss::IDSelector* callers_sel = sel;
    const bool callers_store_pairs = store_pairs;
    return make_counting_scanner(
            *this->invlists,
            counters,
            has_copies,
            callers_store_pairs,
            callers_sel,
            [&](bool store_pairs) {
                const faiss::IDSelector* sel = nullptr;
                return Base::get_InvertedListScanner(
                        FAISS_FLASH_SCANNER_ARGUMENTS);
            });
}

template <class Base>
void IVFFlash<Base>::search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    check_queries(n, x);
    check_parallel_mode(false);
    Base::search(n, x, k, distances, labels, params);
}

template <class Base>
void IVFFlash<Base>::search_and_reconstruct(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        float* recons,
        const faiss::SearchParameters* params) const {
    check_queries(n, x);
    Base::search_and_reconstruct(n, x, k, distances, labels, recons, params);
}

template <class Base>
void IVFFlash<Base>::range_search(
        idx_t n,
        const float* x,
        float radius,
        faiss::RangeSearchResult* result,
        const faiss::SearchParameters* params) const {
    check_queries(n, x);
    check_parallel_mode(true);
    Base::range_search(n, x, radius, result, params);
#if !FAISS_FLASH_RANGE_PREASSIGNED_IS_VIRTUAL
    counters.queries += n;
#endif
}

#if FAISS_FLASH_HAS_SEARCH1
template <class Base>
void IVFFlash<Base>::search1(
        const float* x,
        faiss::ResultHandler& handler,
        faiss::SearchParameters* params) const {
    check_queries(1, x);
    Base::search1(x, handler, params);
    counters.queries++;
}
#endif

template <class Base>
void IVFFlash<Base>::search_preassigned(
        idx_t n,
        const float* x,
        idx_t k,
        const idx_t* assign,
        const float* centroid_dis,
        float* distances,
        idx_t* labels,
        bool store_pairs,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats) const {
    check_metric();
    FAISS_THROW_IF_NOT_MSG(
            this->is_trained, "search: the index is not trained; call train()");
    check_parallel_mode(false);
    FAISS_THROW_IF_NOT_MSG(
            !(store_pairs && params && params->sel),
            "selector and store_pairs cannot be combined");
    const size_t probes = params ? params->nprobe : this->nprobe;
    check_lists(n * std::min(this->nlist, probes), assign);
    Base::search_preassigned(
            n,
            x,
            k,
            assign,
            centroid_dis,
            distances,
            labels,
            store_pairs,
            params,
            stats);
    counters.queries += n;
}

template <class Base>
void IVFFlash<Base>::range_search_preassigned(
        idx_t n,
        const float* x,
        float radius,
        const idx_t* keys,
        const float* coarse_dis,
        faiss::RangeSearchResult* result,
        bool store_pairs,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats) const {
    check_metric();
    check_parallel_mode(true);
    const size_t probes = params ? params->nprobe : this->nprobe;
    check_lists(n * std::min(this->nlist, probes), keys);
    Base::range_search_preassigned(
            n, x, radius, keys, coarse_dis, result, store_pairs, params, stats);
    counters.queries += n;
}

/*************************************************************
 * The rest of IndexIVF
 *************************************************************/

template <class Base>
void IVFFlash<Base>::reset() {
    Base::reset();
    has_copies = false;
}

template <class Base>
size_t IVFFlash<Base>::remove_ids(const faiss::IDSelector& sel) {
    check_no_copies("remove_ids");
    return Base::remove_ids(sel);
}

template <class Base>
void IVFFlash<Base>::update_vectors(int n, const idx_t* ids, const float* x) {
    check_no_copies("update_vectors");
    FAISS_THROW_IF_NOT_FMT(
            policy.rule == AssignmentRule::nearest,
            "update_vectors stores one copy of each vector: policy.rule = %s "
            "should be nearest",
            to_string(policy.rule));
    check_vectors("update_vectors", n, 0, x);
    check_finite("update_vectors", n, this->d, x);
    Base::update_vectors(n, ids, x);
}

template <class Base>
void IVFFlash<Base>::merge_from(faiss::Index& other, idx_t add_id) {
    Base::merge_from(other, add_id);
    // the same type as this one, or the base class had thrown
    auto& other_flash = dynamic_cast<IVFFlash<Base>&>(other);
    has_copies = has_copies || other_flash.has_copies;
    other_flash.has_copies = false;
}

template <class Base>
void IVFFlash<Base>::copy_subset_to(
        faiss::IndexIVF& other,
        FAISS_FLASH_SUBSET_TYPE subset_type,
        idx_t a1,
        idx_t a2) const {
    check_no_copies("copy_subset_to");
    Base::copy_subset_to(other, subset_type, a1, a2);
}

size_t IndexIVFPQFlash::find_duplicates(idx_t* ids, size_t* lims) const {
    FAISS_THROW_IF_NOT_MSG(
            !has_copies,
            "find_duplicates is not supported while vectors are stored in "
            "several lists");
    return IVFFlash::find_duplicates(ids, lims);
}

template struct IVFFlash<faiss::IndexIVFFlat>;
template struct IVFFlash<faiss::IndexIVFPQ>;
template struct IVFFlash<faiss::IndexIVFScalarQuantizer>;

} // namespace faiss_flash
