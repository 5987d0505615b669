#include <faiss_flash/faiss_compat.h>

#if FAISS_FLASH_FAISS_VERSION >= 11402
#include <faiss/impl/ResultHandler.h>
#endif

#include <utility>

#include <faiss/invlists/BlockInvertedLists.h>

#if __has_include(<faiss/impl/ClusteringInitialization.h>)
#include <faiss/impl/ClusteringInitialization.h>
#define FAISS_FLASH_HAS_SEEDED_INIT 1
#else
#define FAISS_FLASH_HAS_SEEDED_INIT 0
#endif

namespace faiss_flash {

namespace {

// Field present: the first overload is viable and preferred. Field absent:
// substitution fails and the catch-all keeps the default.
#define FAISS_FLASH_COPY_FIELD(field)                  \
    template <class P, class Extras>                   \
    auto copy_##field(const P& p, Extras& extras, int) \
            ->decltype((void)p.field) {                \
        extras.field = p.field;                        \
    }                                                  \
    template <class P, class Extras>                   \
    void copy_##field(const P&, Extras&, long) {}

FAISS_FLASH_COPY_FIELD(check_input_data_for_NaNs)
FAISS_FLASH_COPY_FIELD(use_faster_subsampling)
FAISS_FLASH_COPY_FIELD(early_stop_threshold)
FAISS_FLASH_COPY_FIELD(ensure_topk_full)
FAISS_FLASH_COPY_FIELD(max_empty_result_buckets)
FAISS_FLASH_COPY_FIELD(inverted_list_context)

#undef FAISS_FLASH_COPY_FIELD

// Came with use_faster_subsampling.
template <class P>
auto has_clock_seed(const P& cp, int)
        -> decltype((void)cp.use_faster_subsampling, bool()) {
    return true;
}
template <class P>
bool has_clock_seed(const P&, long) {
    return false;
}

template <class Lists>
auto removes_ids(Lists* lists, int)
        -> decltype((void)lists->remove_ids(std::declval<const faiss::IDSelector&>()), bool()) {
    return true;
}
template <class Lists>
bool removes_ids(Lists*, long) {
    return false;
}

} // namespace

ClusteringExtras clustering_extras(const faiss::ClusteringParameters& cp) {
    ClusteringExtras extras;
    copy_check_input_data_for_NaNs(cp, extras, 0);
    copy_use_faster_subsampling(cp, extras, 0);
    copy_early_stop_threshold(cp, extras, 0);
    extras.clock_seed = has_clock_seed(cp, 0);
#if FAISS_FLASH_HAS_SEEDED_INIT
    extras.seeded_init = cp.init_method != faiss::ClusteringInitMethod::RANDOM;
#endif
    return extras;
}

void seeded_init(
        const faiss::ClusteringParameters& cp,
        size_t d,
        size_t k,
        size_t n,
        const float* x,
        int64_t seed,
        size_t n_given,
        float* centroids) {
#if FAISS_FLASH_HAS_SEEDED_INIT
    faiss::ClusteringInitialization init(d, k - n_given);
    init.method = cp.init_method;
    init.seed = seed;
    init.afkmc2_chain_length = cp.afkmc2_chain_length;
    init.init_centroids(
            n,
            x,
            centroids + n_given * d,
            n_given,
            n_given ? centroids : nullptr);
#else
    (void)cp, (void)d, (void)k, (void)n, (void)x, (void)seed;
    (void)n_given, (void)centroids;
    FAISS_THROW_MSG("this FAISS has no seeding methods for k-means");
#endif
}

bool can_remove_from(const faiss::InvertedLists& lists) {
    faiss::BlockInvertedLists* type = nullptr;
    return !dynamic_cast<const faiss::BlockInvertedLists*>(&lists) ||
            removes_ids(type, 0);
}

faiss::IndexIVFStats* default_stats() {
#if FAISS_FLASH_FAISS_VERSION >= 11402
    return &faiss::indexIVF_stats;
#else
    return nullptr;
#endif
}

SearchExtras search_extras(const faiss::IVFSearchParameters& params) {
    SearchExtras extras;
    copy_ensure_topk_full(params, extras, 0);
    copy_max_empty_result_buckets(params, extras, 0);
    copy_inverted_list_context(params, extras, 0);
    return extras;
}

ScanCounts scan_into_heap(
        const faiss::InvertedListScanner& scanner,
        size_t n,
        const uint8_t* codes,
        const idx_t* ids,
        size_t k,
        float* distances,
        idx_t* labels) {
#if FAISS_FLASH_FAISS_VERSION >= 11402
    auto scan = [&](auto handler) -> ScanCounts {
        scanner.scan_codes(n, codes, ids, handler);
        return {handler.stats.scan_cnt, handler.stats.nheap_updates};
    };
    using Least = faiss::CMax<float, idx_t>;
    using Most = faiss::CMin<float, idx_t>;
    return scanner.keep_max
            ? scan(faiss::HeapResultHandler<Most, false>(k, distances, labels))
            : scan(faiss::HeapResultHandler<Least, false>(
                      k, distances, labels));
#else
    return {n, scanner.scan_codes(n, codes, ids, distances, labels, k)};
#endif
}

} // namespace faiss_flash
