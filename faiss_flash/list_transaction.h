#pragma once

#include <vector>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/** Adds vectors to the posting lists of an index, all of them or none.
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
    /// @param ids  (n), or nullptr: ntotal, ntotal + 1, ...; must outlive
    ///             the transaction
    ListTransaction(faiss::IndexIVF& index, idx_t n, const idx_t* ids);

    /// Takes back what was stored unless commit() was called.
    ~ListTransaction();

    ListTransaction(const ListTransaction&) = delete;
    ListTransaction& operator=(const ListTransaction&) = delete;

    /// Encode the next vectors, each relative to every list it goes to, and
    /// append the codes.
    /// @param x      (count, d)
    /// @param lists  (count, m): each once, −1: none
    void store(idx_t count, const float* x, int m, const idx_t* lists);

    /// Update ntotal and the direct map. Every vector was stored.
    void commit();

    /// Whether some vector went to several lists.
    bool has_copies() const {
        return has_copies_;
    }

   private:
    struct Entry {
        idx_t list, row;
    };
    struct OldSize {
        idx_t list;
        size_t size;
    };

    void collect_entries(idx_t count, int m, const idx_t* lists);
    void append(const std::vector<idx_t>& ids, const uint8_t* codes);
    idx_t id_of(idx_t row) const;

    faiss::IndexIVF& index_;
    const idx_t n_;
    const idx_t* ids_;
    idx_t n_stored_ = 0;
    bool has_copies_ = false;
    bool committed_ = false;
    std::vector<Entry> entries_;     // of the current store(), by list
    std::vector<OldSize> old_sizes_; // lists as they were, in order of change
    /// with a direct map: (n), where each vector was stored, −1: nowhere
    std::vector<int64_t> places_;
};

} // namespace faiss_flash
