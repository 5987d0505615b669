#include <faiss_flash/counting_scanner.h>

#include <memory>
#include <vector>

#include <faiss_flash/visited_set.h>

namespace faiss_flash {

namespace {

/// Decides which entries a query looks at, and counts them.
class FirstMeeting {
   public:
    FirstMeeting(bool has_copies, const faiss::IDSelector* sel)
            : sel_(sel),
              has_copies_(has_copies) {}

    void start_query() {
        visited_.clear();
    }

    /// True if the caller's selector takes the id and the query has not met
    /// it before; it has now.
    bool accept(idx_t id) {
        if (sel_ && !sel_->is_member(id)) {
            return false;
        }
        if (has_copies_ && !visited_.insert(id)) {
            return false;
        }
        accepted_++;
        return true;
    }

    size_t accepted() const {
        return accepted_;
    }

   private:
    const faiss::IDSelector* sel_; // the caller's, or nullptr
    bool has_copies_;
    VisitedSet visited_;
    size_t accepted_ = 0;
};

#if FAISS_FLASH_HAS_LIST_ITERATORS
/// Passes over what the selector refuses: FAISS does not ask selectors about
/// lists that are read through iterators.
class SelectedEntries : public faiss::InvertedListsIterator {
   public:
    SelectedEntries(
            faiss::InvertedListsIterator& base,
            FirstMeeting& sel,
            size_t& entries)
            : base_(base),
              sel_(sel),
              entries_(entries) {
#if FAISS_FLASH_HAS_ITERATOR_CALLBACKS
        has_search_callbacks_ = base.has_search_callbacks_;
#endif
        find_member();
    }

    bool is_available() const override {
        return base_.is_available();
    }
    void next() override {
        base_.next();
        find_member();
    }
    std::pair<idx_t, const uint8_t*> get_id_and_codes() override {
        return base_.get_id_and_codes();
    }
#if FAISS_FLASH_HAS_ITERATOR_CALLBACKS
    void on_distance_computed(idx_t id, float distance) override {
        base_.on_distance_computed(id, distance);
    }
    void on_heap_changed(idx_t new_id, idx_t evicted_id) override {
        base_.on_heap_changed(new_id, evicted_id);
    }
#endif

   private:
    void find_member() {
        for (; base_.is_available(); base_.next()) {
            entries_++;
            if (sel_.accept(base_.get_id_and_codes().first)) {
                return;
            }
        }
    }

    faiss::InvertedListsIterator& base_;
    FirstMeeting& sel_;
    size_t& entries_;
};
#endif

class CountingScanner : public faiss::InvertedListScanner {
   public:
    CountingScanner(
            const faiss::InvertedLists& lists,
            SearchCounters& counters,
            bool has_copies,
            bool store_pairs,
            const faiss::IDSelector* sel,
            const ScannerMaker& make_base)
            : faiss::InvertedListScanner(store_pairs, sel),
              lists_(lists),
              counters_(counters),
              selector_(has_copies, sel),
              selecting_(has_copies || sel) {
        // the base scanner numbers the codes it is given from 0, which is
        // not their offset when it is given a run of a list: then pairs come
        // to it as ids
        pairs_as_ids_ = store_pairs && selecting_;
        base_.reset(make_base(store_pairs && !pairs_as_ids_));
        FAISS_THROW_IF_NOT_MSG(
                base_, "the base class has no scanner for this metric");
        keep_max = base_->keep_max;
        code_size = base_->code_size;
    }

    ~CountingScanner() override {
        counters_.entries += entries_;
        counters_.distances += selecting_ ? selector_.accepted() : unselected_;
    }

    void set_query(const float* query) override {
        selector_.start_query();
        base_->set_query(query);
    }

    void set_list(idx_t new_list_no, float coarse_dis) override {
        list_no = new_list_no;
        base_->set_list(new_list_no, coarse_dis);
    }

    float distance_to_code(const uint8_t* code) const override {
        return base_->distance_to_code(code);
    }

    using faiss::InvertedListScanner::scan_codes;

    size_t scan_codes(
            size_t n,
            const uint8_t* codes,
            const idx_t* ids,
            FAISS_FLASH_SCAN_RESULT_PARAMETERS) const override {
        return scan(n, codes, ids, [&](auto count, auto run, auto run_ids) {
            return base_->scan_codes(
                    count, run, run_ids, FAISS_FLASH_SCAN_RESULT_ARGUMENTS);
        });
    }

    void scan_codes_range(
            size_t n,
            const uint8_t* codes,
            const idx_t* ids,
            float radius,
            faiss::RangeQueryResult& result) const override {
        scan(n, codes, ids, [&](auto count, auto run, auto run_ids) {
            base_->scan_codes_range(count, run, run_ids, radius, result);
            return 0;
        });
    }

#if FAISS_FLASH_HAS_LIST_ITERATORS
    size_t iterate_codes(
            faiss::InvertedListsIterator* iterator,
            float* distances,
            idx_t* labels,
            size_t k,
            size_t& list_size) const override {
        return iterate(iterator, list_size, [&](auto* it) {
            return base_->iterate_codes(it, distances, labels, k, list_size);
        });
    }

    void iterate_codes_range(
            faiss::InvertedListsIterator* iterator,
            float radius,
            faiss::RangeQueryResult& result,
            size_t& list_size) const override {
        iterate(iterator, list_size, [&](auto* it) {
            base_->iterate_codes_range(it, radius, result, list_size);
            return 0;
        });
    }
#endif

   private:
    /// Give the base scanner the n entries, or the runs of them that the
    /// query has a use for: scan_run(count, codes, ids). Without ids the
    /// entries are the current list's first n. Returns the sum of what
    /// scan_run returns.
    template <class ScanRun>
    size_t scan(
            size_t n,
            const uint8_t* codes,
            const idx_t* ids,
            ScanRun&& scan_run) const {
        entries_ += n;
        if (!selecting_) {
            unselected_ += n;
            return scan_run(n, codes, ids);
        }
        if (!pairs_as_ids_) {
            return scan_runs(n, codes, ids, ids, scan_run);
        }
        pairs_.resize(n);
        for (size_t j = 0; j < n; j++) {
            pairs_[j] = faiss::lo_build(list_no, j);
        }
        const faiss::InvertedLists::ScopedIds list_ids(&lists_, list_no);
        return scan_runs(n, codes, list_ids.ids, pairs_.data(), scan_run);
    }

    /// @param ids     what is looked up in the selector
    /// @param labels  what the base scanner is given as ids
    template <class ScanRun>
    size_t scan_runs(
            size_t n,
            const uint8_t* codes,
            const idx_t* ids,
            const idx_t* labels,
            ScanRun&& scan_run) const {
        const size_t bytes = lists_.code_size;
        size_t nup = 0;
        for (size_t end = 0; end < n;) {
            while (end < n && !selector_.accept(ids[end])) {
                end++;
            }
            const size_t begin = end;
            if (end < n) {
                end++; // accepted just now
            }
            while (end < n && selector_.accept(ids[end])) {
                end++;
            }
            if (begin < end) {
                nup += scan_run(
                        end - begin, codes + begin * bytes, labels + begin);
            }
            end++; // refused just now, or past the last
        }
        return nup;
    }

#if FAISS_FLASH_HAS_LIST_ITERATORS
    template <class IterateBase>
    size_t iterate(
            faiss::InvertedListsIterator* iterator,
            const size_t& list_size,
            IterateBase&& iterate_base) const {
        if (selecting_) {
            SelectedEntries selected(*iterator, selector_, entries_);
            return iterate_base(&selected);
        }
        const size_t nup = iterate_base(iterator);
        entries_ += list_size;
        unselected_ += list_size;
        return nup;
    }
#endif

    const faiss::InvertedLists& lists_;
    SearchCounters& counters_;
    mutable FirstMeeting selector_;
    const bool selecting_; // whether selector_ is asked
    bool pairs_as_ids_;    // store_pairs by way of ids
    std::unique_ptr<faiss::InvertedListScanner> base_;
    mutable std::vector<idx_t> pairs_;
    mutable size_t entries_ = 0;
    mutable size_t unselected_ = 0; // distances where nobody is asked
};

} // namespace

faiss::InvertedListScanner* make_counting_scanner(
        const faiss::InvertedLists& lists,
        SearchCounters& counters,
        bool has_copies,
        bool store_pairs,
        const faiss::IDSelector* sel,
        const ScannerMaker& make_base) {
    return new CountingScanner(
            lists, counters, has_copies, store_pairs, sel, make_base);
}

} // namespace faiss_flash
