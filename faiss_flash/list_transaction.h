#pragma once

#include <vector>

#include <faiss_flash/faiss_compat.h>
#include <faiss_flash/ivf/direct_map_edit.h>
#include <faiss_flash/ivf/find_entries.h>
#include <faiss_flash/ivf/list_journal.h>

namespace faiss_flash {

/** Changes what the posting lists of an index hold, altogether or not at all:
 * entries are erased first, then vectors are stored, then commit() brings
 * ntotal and the direct map in line. Without commit() everything is taken
 * back.
 *
 * Lists get their entries in the order of the rows, as FAISS's add_core
 * gives them: with policy `nearest` the lists are FAISS's own, and ids added
 * in ascending order stay sorted in every list.
 *
 * FAISS's add_core is not used because an exception inside it (no memory,
 * lists that cannot be written) ends the process.
 */
class ListTransaction {
   public:
    /// @param n    vectors that will be stored in all
    /// @param ids  (n), or nullptr: next_id() and so on; must outlive the
    ///             transaction
    explicit ListTransaction(
            faiss::IndexIVF& index,
            idx_t n = 0,
            const idx_t* ids = nullptr);

    ListTransaction(const ListTransaction&) = delete;
    ListTransaction& operator=(const ListTransaction&) = delete;

    /// Before anything is stored. Every entry of an id has to be there.
    void erase(const FoundEntries& found);

    /// Encode the next vectors, each relative to every list it goes to, and
    /// append the codes.
    /// @param x      (count, d)
    /// @param lists  (count, m): each once, −1: none
    void store(idx_t count, const float* x, int m, const idx_t* lists);

    /// Append the next vectors by their codes, one list each.
    /// @param codes  (count, code_size)
    /// @param lists  (count), −1: none
    void store_codes(idx_t count, const uint8_t* codes, const idx_t* lists);

    /// Update ntotal and the direct map, which names the first of the lists
    /// each vector went to. All n vectors were stored.
    void commit();

    /// Whether some vector went to several lists.
    bool has_copies() const {
        return has_copies_;
    }

   private:
    struct Entry {
        idx_t list, row;
        bool is_first; // of its row's
    };

    void collect_entries(idx_t count, int m, const idx_t* lists);
    void append(const uint8_t* codes);
    idx_t id_of(idx_t row) const;

    faiss::IndexIVF& index_;
    const idx_t n_;
    const idx_t* ids_;
    const idx_t first_id_; // without ids
    idx_t n_stored_ = 0;
    idx_t n_erased_ = 0;
    bool has_copies_ = false;
    std::vector<Entry> entries_; // of the current store(), by list
    DirectMapEdit map_;
    ListJournal journal_;
    /// with a direct map: (n), where each vector's first copy was stored,
    /// −1: nowhere
    std::vector<int64_t> places_;
};

} // namespace faiss_flash
