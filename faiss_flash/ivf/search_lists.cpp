#include <faiss_flash/ivf/search_lists.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <unordered_set>
#include <vector>

#include <omp.h>

#include <faiss/utils/Heap.h>
#include <faiss/utils/utils.h>

#include <faiss_flash/engine/chunks.h>

namespace faiss_flash {

Probes probe_lists(
        const faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        const faiss::IVFSearchParameters* params) {
    const double begin = faiss::getmillisecs();
    const size_t nprobe =
            std::min(index.nlist, params ? params->nprobe : index.nprobe);
    FAISS_THROW_IF_NOT_FMT(
            nprobe > 0, "search: nprobe = %zd should be above 0", nprobe);
    Probes probes{
            std::vector<idx_t>(n * nprobe), std::vector<float>(n * nprobe)};
    index.quantizer->search(
            n,
            x,
            nprobe,
            probes.dist.data(),
            probes.keys.data(),
            params ? params->quantizer_params : nullptr);
    index.invlists->prefetch_lists(probes.keys.data(), (int)(n * nprobe));
    faiss::indexIVF_stats.quantization_time += faiss::getmillisecs() - begin;
    return probes;
}

const faiss::IVFSearchParameters* ivf_parameters(
        const faiss::SearchParameters* params) {
    auto* ivf = dynamic_cast<const faiss::IVFSearchParameters*>(params);
    FAISS_THROW_IF_NOT_MSG(
            ivf || !params,
            "search: params should be SearchParametersIVF or a class made "
            "from it");
    return ivf;
}

size_t ListSearch::nprobe() const {
    return std::min(index.nlist, params ? params->nprobe : index.nprobe);
}

namespace {

/// Leaves out the ids that are in a heap of results already.
class NotInHeap : public faiss::IDSelector {
   public:
    NotInHeap(const ListSearch& search, const faiss::IDSelector* sel)
            : search_(search),
              sel_(sel) {}

    void set_heap(idx_t k, const idx_t* labels) {
        ids_.clear();
        for (idx_t j = 0; j < k; j++) {
            if (labels[j] >= 0) {
                ids_.insert(search_.store_pairs ? id_at(labels[j]) : labels[j]);
            }
        }
    }

    bool is_member(idx_t id) const override {
        return ids_.count(id) == 0 && (!sel_ || sel_->is_member(id));
    }

   private:
    idx_t id_at(idx_t pair) const {
        return search_.index.invlists->get_single_id(
                faiss::lo_listno(pair), faiss::lo_offset(pair));
    }

    const ListSearch& search_;
    const faiss::IDSelector* sel_;
    std::unordered_set<idx_t> ids_;
};

/// The caller's selector. FAISS cuts a sorted list instead of asking
/// IDSelectorRange about every id.
struct Selection {
    const faiss::IDSelector* sel = nullptr;
    const faiss::IDSelectorRange* sorted_range = nullptr;

    Selection(const ListSearch& search, bool may_cut_lists)
            : sel(search.params ? search.params->sel : nullptr) {
        auto* range = dynamic_cast<const faiss::IDSelectorRange*>(sel);
        if (range && range->assume_sorted && may_cut_lists) {
            sorted_range = range;
            sel = nullptr;
        }
    }
};

SearchExtras extras_of(const ListSearch& search) {
    return search.params ? search_extras(*search.params) : SearchExtras();
}

/// Give a query's list, or of its codes no more than `most`, to the scanner:
/// scan(n, codes, ids), or iterate(iterator) for lists that want it.
/// Returns what these return, 0 for an empty list.
template <class Scan, class Iterate>
size_t visit_list(
        const ListSearch& search,
        faiss::InvertedListScanner& scanner,
        const Selection& selection,
        void* context,
        size_t probe,
        size_t most,
        size_t& nlist,
        Scan&& scan,
        Iterate&& iterate) {
    const faiss::InvertedLists& lists = *search.index.invlists;
    const idx_t list = search.keys[probe];
    if (list < 0) {
        return 0;
    }
#if FAISS_FLASH_HAS_LIST_CONTEXT
    if (lists.is_empty(list, context)) {
        return 0;
    }
    scanner.set_list(list, search.coarse_dis[probe]);
    nlist++;
    if (lists.use_iterator) {
        std::unique_ptr<faiss::InvertedListsIterator> iterator(
                lists.get_iterator(list, context));
        return iterate(iterator.get());
    }
#else
    (void)context, (void)iterate;
    if (lists.list_size(list) == 0) {
        return 0;
    }
    scanner.set_list(list, search.coarse_dis[probe]);
    nlist++;
#endif
    size_t begin = 0, end = std::min(lists.list_size(list), most);
    faiss::InvertedLists::ScopedCodes codes(&lists, list);
    const faiss::InvertedLists::ScopedIds ids(&lists, list);
    if (selection.sorted_range) {
        selection.sorted_range->find_sorted_ids_bounds(
                end, ids.ids, &begin, &end);
    }
    if (begin >= end) {
        return 0;
    }
    return scan(
            end - begin,
            codes.get() + begin * search.index.code_size,
            ids.ids + begin);
}

/// Runs query(scanner, i) for all queries; each thread has a scanner of
/// make_scanner(thread).
template <class MakeScanner, class Query>
void for_each_query(
        const ListSearch& search,
        int nthread,
        const MakeScanner& make_scanner,
        const Query& query) {
    OmpExceptions exceptions;
    std::atomic<bool> stopped{false};
#pragma omp parallel num_threads(nthread) if (nthread > 1)
    {
        std::unique_ptr<faiss::InvertedListScanner> scanner;
        exceptions.run(
                [&] { scanner.reset(make_scanner(omp_get_thread_num())); });
#pragma omp for schedule(dynamic)
        for (idx_t i = 0; i < search.n; i++) {
            exceptions.run([&] {
                if (!scanner || stopped) {
                    return;
                }
                scanner->set_query(search.x + i * search.index.d);
                try {
                    query(*scanner, i);
                } catch (...) {
                    stopped = true;
                    throw;
                }
                if (faiss::InterruptCallback::is_interrupted()) {
                    stopped = true;
                    FAISS_THROW_MSG("computation interrupted");
                }
            });
        }
    }
    exceptions.rethrow();
}

int thread_count(const ListSearch& search, bool parallel) {
    return parallel
            ? (int)std::max<idx_t>(
                      1, std::min<idx_t>(search.n, omp_get_max_threads()))
            : 1;
}

} // namespace

bool stock_search_does(
        const faiss::IndexIVF& index,
        bool store_pairs,
        const faiss::IVFSearchParameters* params) {
    const int no_init = index.PARALLEL_MODE_NO_HEAP_INIT;
    const int mode = index.parallel_mode & ~no_init;
    const bool callers_heap = index.parallel_mode & no_init;
    const bool selected_pairs = store_pairs && params && params->sel;
    return !selected_pairs && !(callers_heap && (mode == 1 || mode == 2));
}

void search_lists(
        const ListSearch& search,
        idx_t k,
        float* distances,
        idx_t* labels,
        faiss::IndexIVFStats& stats) {
    const faiss::IndexIVF& index = search.index;
    const int no_init = index.PARALLEL_MODE_NO_HEAP_INIT;
    const bool own_heap = !(index.parallel_mode & no_init);
    const int mode = index.parallel_mode & ~no_init;
    const bool similar = index.metric_type == faiss::METRIC_INNER_PRODUCT;
    using Most = faiss::CMin<float, idx_t>;
    using Least = faiss::CMax<float, idx_t>;

    const Selection selection(search, own_heap && !search.store_pairs);
    const SearchExtras extras = extras_of(search);
    const size_t nprobe = search.nprobe();
    size_t max_codes =
            search.params ? search.params->max_codes : index.max_codes;
    if (max_codes == 0) {
        max_codes = std::numeric_limits<size_t>::max();
    } else if (extras.ensure_topk_full) {
        max_codes = std::max<size_t>(max_codes, k);
    }
    const bool whole_lists =
            extras.ensure_topk_full || !FAISS_FLASH_MAX_CODES_CUTS_LISTS;

    const int nthread = thread_count(search, mode != 0);
    std::vector<NotInHeap> not_in_heap(nthread, {search, selection.sel});
    std::atomic<size_t> nlist{0}, nheap{0};

    auto query = [&](faiss::InvertedListScanner& scanner, idx_t i) {
        float* dist = distances + i * k;
        idx_t* ids = labels + i * k;
        if (!own_heap) {
            not_in_heap[omp_get_thread_num()].set_heap(k, ids);
        } else if (similar) {
            faiss::heap_heapify<Most>(k, dist, ids);
        } else {
            faiss::heap_heapify<Least>(k, dist, ids);
        }
        size_t ncode = 0, query_nlist = 0, query_nheap = 0;
        for (size_t rank = 0; rank < nprobe && ncode < max_codes; rank++) {
            ncode += visit_list(
                    search,
                    scanner,
                    selection,
                    extras.inverted_list_context,
                    i * nprobe + rank,
                    whole_lists ? std::numeric_limits<size_t>::max()
                                : max_codes - ncode,
                    query_nlist,
                    [&](size_t n, const uint8_t* codes, const idx_t* list_ids) {
                        const ScanCounts counts = scan_into_heap(
                                scanner, n, codes, list_ids, k, dist, ids);
                        query_nheap += counts.heap_updates;
                        return counts.codes;
                    },
                    [&](auto* iterator) {
                        size_t size = 0;
#if FAISS_FLASH_HAS_LIST_ITERATORS
                        query_nheap += scanner.iterate_codes(
                                iterator, dist, ids, k, size);
#else
                        (void)iterator;
#endif
                        return size;
                    });
        }
        if (own_heap && similar) {
            faiss::heap_reorder<Most>(k, dist, ids);
        } else if (own_heap) {
            faiss::heap_reorder<Least>(k, dist, ids);
        }
        nlist += query_nlist;
        nheap += query_nheap;
    };
    for_each_query(
            search,
            nthread,
            [&](int thread) {
                return search.make_scanner(
                        own_heap ? selection.sel : &not_in_heap[thread]);
            },
            query);
    stats.nq += search.n;
    stats.nlist += nlist;
    stats.nheap_updates += nheap;
}

void range_search_lists(
        const ListSearch& search,
        float radius,
        faiss::RangeSearchResult& result,
        faiss::IndexIVFStats& stats) {
    // FAISS does not cut sorted lists here
    const Selection selection(search, false);
    const SearchExtras extras = extras_of(search);
    const size_t nprobe = search.nprobe();
    const int nthread = thread_count(search, true);
    std::vector<std::unique_ptr<faiss::RangeSearchPartialResult>> found;
    found.reserve(nthread);
    for (int thread = 0; thread < nthread; thread++) {
        found.push_back(
                std::make_unique<faiss::RangeSearchPartialResult>(&result));
    }
    std::atomic<size_t> nlist{0};

    auto query = [&](faiss::InvertedListScanner& scanner, idx_t i) {
        faiss::RangeQueryResult& results =
                found[omp_get_thread_num()]->new_result(i);
        size_t query_nlist = 0, nempty = 0;
        for (size_t rank = 0; rank < nprobe; rank++) {
            const size_t before = results.nres;
            visit_list(
                    search,
                    scanner,
                    selection,
                    extras.inverted_list_context,
                    i * nprobe + rank,
                    std::numeric_limits<size_t>::max(),
                    query_nlist,
                    [&](size_t n, const uint8_t* codes, const idx_t* ids) {
                        scanner.scan_codes_range(
                                n, codes, ids, radius, results);
                        return size_t(0);
                    },
                    [&](auto* iterator) {
                        size_t size = 0;
#if FAISS_FLASH_HAS_LIST_ITERATORS
                        scanner.iterate_codes_range(
                                iterator, radius, results, size);
#else
                        (void)iterator;
#endif
                        return size;
                    });
            nempty = results.nres == before ? nempty + 1 : 0;
            if (extras.max_empty_result_buckets > 0 &&
                nempty >= extras.max_empty_result_buckets) {
                break;
            }
        }
        nlist += query_nlist;
    };
    for_each_query(
            search,
            nthread,
            [&](int) { return search.make_scanner(selection.sel); },
            query);

    std::fill(result.lims, result.lims + result.nq + 1, 0);
    std::vector<faiss::RangeSearchPartialResult*> parts;
    parts.reserve(nthread);
    for (auto& part : found) {
        parts.push_back(part.get());
    }
    faiss::RangeSearchPartialResult::merge(parts, false);
    stats.nq += search.n;
    stats.nlist += nlist;
}

#if FAISS_FLASH_HAS_SEARCH1
void search_lists_for_one(
        const ListSearch& search,
        faiss::ResultHandler& handler) {
    FAISS_THROW_IF_NOT_MSG(
            !search.index.invlists->use_iterator,
            "search1: inverted lists that are read through iterators have no "
            "result handlers");
    const Selection selection(search, true);
    std::unique_ptr<faiss::InvertedListScanner> scanner(
            search.make_scanner(selection.sel));
    scanner->set_query(search.x);
    size_t nlist = 0;
    for (size_t rank = 0; rank < search.nprobe(); rank++) {
        visit_list(
                search,
                *scanner,
                selection,
                extras_of(search).inverted_list_context,
                rank,
                std::numeric_limits<size_t>::max(),
                nlist,
                [&](size_t n, const uint8_t* codes, const idx_t* ids) {
                    return scanner->scan_codes(n, codes, ids, handler);
                },
                [](auto*) { return size_t(0); });
    }
}
#endif

} // namespace faiss_flash
