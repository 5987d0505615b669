#include <faiss_flash/counting_scanner.h>

#include <algorithm>
#include <memory>
#include <vector>

#include <faiss_flash/visited_set.h>

namespace faiss_flash {

namespace {

/// Ids from here on are hashed: with more bits than these 2 MiB per thread,
/// setting up and cache misses would cost more than hashing.
constexpr size_t most_dense_ids = size_t(1) << 24;

/// Long codes are asked for some kilobytes before they are scanned. The
/// processor does so by itself, but starts again where a run ends. Flat, 128
/// dimensions, two lists per vector: 1.5 times faster; codes of 128 bytes
/// become 4 % slower, so these go without.
constexpr size_t least_fetched_code_size = 256;
constexpr size_t bytes_per_scan = 4096; // given to the base scanner at a time
constexpr size_t bytes_ahead = 8192;    // on their way meanwhile

/// Asks for the codes of one list, front to back, if they are long.
class CodeFetcher {
   public:
    CodeFetcher(const uint8_t* codes, size_t n, size_t code_size)
            : codes_(codes),
              code_size_(code_size),
              bytes_(code_size < least_fetched_code_size ? 0 : n * code_size) {
        fetch_to(bytes_ahead);
    }

    /// How many of entries [begin, end), begin < end, to scan next. Their
    /// codes and some after them are on their way.
    size_t fetch_for(size_t begin, size_t end) {
        if (bytes_ == 0) {
            return end - begin;
        }
        const size_t most = std::max<size_t>(1, bytes_per_scan / code_size_);
        const size_t count = std::min(end - begin, most);
        fetch_to((begin + count) * code_size_ + bytes_ahead);
        return count;
    }

   private:
    static constexpr size_t cache_line = 64;

    void fetch_to(size_t end) {
        // not unrolled: four at a time gain half as much
        for (end = std::min(end, bytes_); at_ < end; at_ += cache_line) {
            __builtin_prefetch(codes_ + at_);
        }
    }

    const uint8_t* codes_;
    size_t code_size_;
    size_t bytes_; // 0: codes are too short to be asked for
    size_t at_ = 0;
};

/// Decides which entries a query looks at, and counts them.
class FirstMeeting {
   public:
    /// @param nids  most ids are below this, if has_copies
    FirstMeeting(bool has_copies, size_t nids, const faiss::IDSelector* sel)
            : sel_(sel),
              has_copies_(has_copies),
              visited_(has_copies && nids <= most_dense_ids ? nids : 0) {}

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

    /// Cut entries (n) into runs of those that accept() is true for: run r is
    /// [ends[2r], ends[2r + 1]). Returns the number of runs; ends has room
    /// for n + 1.
    size_t find_runs(size_t n, const idx_t* ids, size_t* ends) {
        size_t nend = 0, accepted = 0;
        bool inside = false;
        // no branch depends on what was met
        const auto cut = [&](size_t j, bool take) {
            ends[nend] = j;
            nend += take != inside;
            accepted += take;
            inside = take;
        };
        const auto selected = [&](idx_t id) { return sel_->is_member(id); };
        if (!has_copies_) {
            for (size_t j = 0; j < n; j++) {
                cut(j, selected(ids[j]));
            }
        } else if (sel_) {
            visited_.insert_each(n, ids, selected, cut);
        } else {
            visited_.insert_each(
                    n, ids, [](idx_t) { return true; }, cut);
        }
        if (inside) {
            ends[nend++] = n;
        }
        accepted_ += accepted;
        return nend / 2;
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
            size_t nids,
            bool store_pairs,
            const faiss::IDSelector* sel,
            const ScannerMaker& make_base)
            : faiss::InvertedListScanner(store_pairs, sel),
              lists_(lists),
              counters_(counters),
              selector_(has_copies, nids, sel),
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
            // pairs are numbered from the start of what is given
            if (!ids || !FAISS_FLASH_SCAN_WAITS_FOR_MEMORY) {
                return scan_run(n, codes, ids);
            }
            CodeFetcher fetcher(codes, n, lists_.code_size);
            return scan_entries(0, n, codes, ids, fetcher, scan_run);
        }
        ends_.resize(std::max(ends_.size(), n + 1));
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
        CodeFetcher fetcher(codes, n, lists_.code_size);
        const size_t nrun = selector_.find_runs(n, ids, ends_.data());
        size_t nup = 0;
        for (size_t r = 0; r < nrun; r++) {
            nup += scan_entries(
                    ends_[2 * r],
                    ends_[2 * r + 1],
                    codes,
                    labels,
                    fetcher,
                    scan_run);
        }
        return nup;
    }

    /// Give the base scanner entries [begin, end).
    template <class ScanRun>
    size_t scan_entries(
            size_t begin,
            size_t end,
            const uint8_t* codes,
            const idx_t* labels,
            CodeFetcher& fetcher,
            ScanRun&& scan_run) const {
        size_t nup = 0;
        while (begin < end) {
            const size_t count = fetcher.fetch_for(begin, end);
            nup += scan_run(
                    count, codes + begin * lists_.code_size, labels + begin);
            begin += count;
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
    mutable std::vector<size_t> ends_; // of runs
    mutable size_t entries_ = 0;
    mutable size_t unselected_ = 0; // distances where nobody is asked
};

} // namespace

faiss::InvertedListScanner* make_counting_scanner(
        const faiss::InvertedLists& lists,
        SearchCounters& counters,
        bool has_copies,
        size_t nids,
        bool store_pairs,
        const faiss::IDSelector* sel,
        const ScannerMaker& make_base) {
    return new CountingScanner(
            lists, counters, has_copies, nids, store_pairs, sel, make_base);
}

} // namespace faiss_flash
