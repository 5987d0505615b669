#pragma once

// The one place that knows which FAISS this is built against (1.7.3 to 1.15).
// Everything else includes this header and uses the names below.

#include <cstdint>

#include <faiss/Clustering.h>
#include <faiss/Index.h>
#include <faiss/IndexIVF.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/FaissAssert.h>

#define FAISS_FLASH_FAISS_VERSION                              \
    (FAISS_VERSION_MAJOR * 10000 + FAISS_VERSION_MINOR * 100 + \
     FAISS_VERSION_PATCH)

#if __has_include(<faiss/impl/IDSelector.h>)
#include <faiss/impl/IDSelector.h>
#endif

namespace faiss_flash {

#if FAISS_FLASH_FAISS_VERSION >= 10704
using idx_t = faiss::idx_t;
#else
using idx_t = faiss::Index::idx_t;
#endif

// Signatures of faiss::IndexIVF's virtual functions that changed.
#if FAISS_FLASH_FAISS_VERSION >= 11100
#define FAISS_FLASH_SCANNER_PARAMETERS              \
    bool store_pairs, const faiss::IDSelector *sel, \
            const faiss::IVFSearchParameters *params
#define FAISS_FLASH_SCANNER_ARGUMENTS store_pairs, sel, params
#else
#define FAISS_FLASH_SCANNER_PARAMETERS \
    bool store_pairs, const faiss::IDSelector *sel
#define FAISS_FLASH_SCANNER_ARGUMENTS store_pairs, sel
#endif
#if FAISS_FLASH_FAISS_VERSION >= 10704
#define FAISS_FLASH_SUBSET_TYPE faiss::InvertedLists::subset_type_t
#define FAISS_FLASH_RANGE_PREASSIGNED_IS_VIRTUAL 1
#define FAISS_FLASH_RANGE_PREASSIGNED_OVERRIDE override
#define FAISS_FLASH_HAS_LIST_ITERATORS 1
#else
#define FAISS_FLASH_SUBSET_TYPE int
#define FAISS_FLASH_RANGE_PREASSIGNED_IS_VIRTUAL 0
#define FAISS_FLASH_RANGE_PREASSIGNED_OVERRIDE
#define FAISS_FLASH_HAS_LIST_ITERATORS 0
#endif
#if FAISS_FLASH_FAISS_VERSION >= 11400
#define FAISS_FLASH_HAS_SEARCH1 1
#define FAISS_FLASH_SCAN_RESULT_PARAMETERS faiss::ResultHandler& handler
#define FAISS_FLASH_SCAN_RESULT_ARGUMENTS handler
#else
#define FAISS_FLASH_HAS_SEARCH1 0
#define FAISS_FLASH_SCAN_RESULT_PARAMETERS \
    float *distances, faiss_flash::idx_t *labels, size_t k
#define FAISS_FLASH_SCAN_RESULT_ARGUMENTS distances, labels, k
#endif
#if FAISS_FLASH_FAISS_VERSION >= 11402
#define FAISS_FLASH_HAS_ITERATOR_CALLBACKS 1
#else
#define FAISS_FLASH_HAS_ITERATOR_CALLBACKS 0
#endif

// From 1.7.4 on max_codes cuts the list in which it is reached.
#define FAISS_FLASH_MAX_CODES_CUTS_LISTS (FAISS_FLASH_FAISS_VERSION >= 10704)
#if FAISS_FLASH_FAISS_VERSION >= 10800
#define FAISS_FLASH_ADD_CORE_PARAMETERS                                   \
    faiss_flash::idx_t n, const float *x, const faiss_flash::idx_t *xids, \
            const faiss_flash::idx_t *precomputed_idx,                    \
            void *inverted_list_context
#define FAISS_FLASH_NO_LIST_CONTEXT = nullptr
#define FAISS_FLASH_HAS_LIST_CONTEXT 1
#else
#define FAISS_FLASH_ADD_CORE_PARAMETERS                                   \
    faiss_flash::idx_t n, const float *x, const faiss_flash::idx_t *xids, \
            const faiss_flash::idx_t *precomputed_idx
#define FAISS_FLASH_NO_LIST_CONTEXT
#define FAISS_FLASH_HAS_LIST_CONTEXT 0
#endif
#if FAISS_FLASH_FAISS_VERSION >= 11000
#define FAISS_FLASH_ADD_SA_CODES_OVERRIDE override
#else
#define FAISS_FLASH_ADD_SA_CODES_OVERRIDE
#endif

/// Fields of faiss::SearchParametersIVF that older versions do not have.
struct SearchExtras {
    bool ensure_topk_full = false;
    size_t max_empty_result_buckets = 0;
    void* inverted_list_context = nullptr;
};

/// Where a search counts that was given no statistics: newer versions take
/// the global indexIVF_stats, older ones nullptr.
faiss::IndexIVFStats* default_stats();

SearchExtras search_extras(const faiss::IVFSearchParameters& params);

struct ScanCounts {
    size_t codes; ///< that count for max_codes
    size_t heap_updates;
};

/// Scan n codes of the scanner's current list into a heap of k results.
ScanCounts scan_into_heap(
        const faiss::InvertedListScanner& scanner,
        size_t n,
        const uint8_t* codes,
        const idx_t* ids,
        size_t k,
        float* distances,
        idx_t* labels);

// Scalar quantizers that need no more than each dimension's range: enumerators
// below this one.
#if FAISS_FLASH_FAISS_VERSION >= 10900
#define FAISS_FLASH_SQ_TYPES 9
#else
#define FAISS_FLASH_SQ_TYPES 7
#endif

// Whether scanning long codes is limited by memory, not by arithmetic.
// Measured: asking for whole lists ahead makes 1.15 1.15 times faster and
// 1.7.3 5 % slower.
#define FAISS_FLASH_SCAN_WAITS_FOR_MEMORY (FAISS_FLASH_FAISS_VERSION >= 11400)

/// Fields of faiss::ClusteringParameters that older versions do not have,
/// with the value that reproduces what those versions do.
struct ClusteringExtras {
    bool check_input_data_for_NaNs = true;
    bool use_faster_subsampling = false;
    /// true if a negative seed asks for one from the clock; older versions
    /// take it as it is
    bool clock_seed = false;
    /// relative change of the objective at which training stops; negative:
    /// never (1.7.3 has no early stop, newer versions stop at no change)
    double early_stop_threshold = -1;
    /// true if `init_method` asks for something else than random rows
    bool seeded_init = false;
};

/// Where the version has the field, its value; see ClusteringExtras.
ClusteringExtras clustering_extras(const faiss::ClusteringParameters& cp);

/// Fill centroids[n_given * d, k * d) by the seeding method in `cp`
/// (k-means++, AFK-MC²). Only called when clustering_extras().seeded_init.
void seeded_init(
        const faiss::ClusteringParameters& cp,
        size_t d,
        size_t k,
        size_t n,
        const float* x,
        int64_t seed,
        size_t n_given,
        float* centroids);

/// False for block inverted lists where FAISS has no code for it and would
/// end the process.
bool can_remove_from(const faiss::InvertedLists& lists);

} // namespace faiss_flash
