#include <faiss_flash/counting_scanner.h>

#include <memory>
#include <vector>

#include <faiss_flash/visited_set.h>

namespace faiss_flash {

namespace {

/// What the base scanner asks before it computes a distance.
class FirstMeeting : public faiss::IDSelector {
   public:
    FirstMeeting(bool has_copies, const faiss::IDSelector* sel)
            : sel_(sel),
              has_copies_(has_copies) {}

    void start_query() {
        visited_.clear();
    }

    /// From now on ids are (list, offset) pairs of a list with these ids.
    void translate_pairs(const idx_t* list_ids) {
        list_ids_ = list_ids;
    }

    bool is_member(idx_t id) const override {
        if (list_ids_) {
            id = list_ids_[faiss::lo_offset(id)];
        }
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
    const idx_t* list_ids_ = nullptr;
    mutable VisitedSet visited_;
    mutable size_t accepted_ = 0;
};

#if FAISS_FLASH_HAS_LIST_ITERATORS
/// Passes over what the selector refuses: FAISS does not ask selectors about
/// lists that are read through iterators.
class SelectedEntries : public faiss::InvertedListsIterator {
   public:
    SelectedEntries(
            faiss::InvertedListsIterator& base,
            const faiss::IDSelector& sel,
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
            if (sel_.is_member(base_.get_id_and_codes().first)) {
                return;
            }
        }
    }

    faiss::InvertedListsIterator& base_;
    const faiss::IDSelector& sel_;
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
        // FAISS's PQ scanner reads ids wherever there is a selector, so
        // pairs have to come to it as ids
        pairs_as_ids_ = store_pairs && selecting_;
        base_.reset(make_base(
                store_pairs && !pairs_as_ids_,
                selecting_ ? &selector_ : nullptr));
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
        return scan(n, ids, [&](const idx_t* base_ids) {
            return base_->scan_codes(
                    n, codes, base_ids, FAISS_FLASH_SCAN_RESULT_ARGUMENTS);
        });
    }

    void scan_codes_range(
            size_t n,
            const uint8_t* codes,
            const idx_t* ids,
            float radius,
            faiss::RangeQueryResult& result) const override {
        scan(n, ids, [&](const idx_t* base_ids) {
            base_->scan_codes_range(n, codes, base_ids, radius, result);
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
    /// `scan_base` scans the current list's first n entries, or with ids any
    /// n entries.
    template <class ScanBase>
    size_t scan(size_t n, const idx_t* ids, ScanBase&& scan_base) const {
        entries_ += n;
        if (!selecting_) {
            unselected_ += n;
        }
        if (!pairs_as_ids_) {
            return scan_base(ids);
        }
        pairs_.resize(n);
        for (size_t j = 0; j < n; j++) {
            pairs_[j] = faiss::lo_build(list_no, j);
        }
        const faiss::InvertedLists::ScopedIds list_ids(&lists_, list_no);
        selector_.translate_pairs(list_ids.ids);
        const size_t nup = scan_base(pairs_.data());
        selector_.translate_pairs(nullptr);
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
    const bool selecting_; // whether the base scanner asks selector_
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
