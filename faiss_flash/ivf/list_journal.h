#pragma once

#include <vector>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/** Changes to inverted lists that are undone unless commit() is called.
 *
 * Undoing gives every list its entries back in their old order. Holds a copy
 * of what was erased and of what was overwritten, nothing of what was
 * appended.
 */
class ListJournal {
   public:
    /// An entry that now is elsewhere in its list.
    struct Move {
        idx_t id;
        size_t from, to;
    };

    explicit ListJournal(faiss::InvertedLists& lists) : lists_(lists) {}
    ~ListJournal();
    ListJournal(const ListJournal&) = delete;
    ListJournal& operator=(const ListJournal&) = delete;

    /// To be called before entries are appended to the list.
    void will_append(idx_t list);

    /** Erase entries as FAISS does: each gap, in order, gets the entry that
     * is the list's last by then.
     *
     * @param offsets  ascending, each once
     * @param moves    what was moved is appended
     */
    void erase(
            idx_t list,
            const std::vector<size_t>& offsets,
            std::vector<Move>& moves);

    void commit() {
        steps_.clear();
    }

   private:
    struct Entries {
        std::vector<idx_t> ids;
        std::vector<uint8_t> codes;
    };
    struct Step {
        idx_t list;
        size_t kept;              // entries that were not cut or appended
        Entries tail;             // what was cut
        std::vector<size_t> gaps; // what was overwritten: where, what
        Entries gap_entries;
    };

    Entries read(idx_t list, size_t begin, size_t end) const;
    void undo(const Step& step);

    faiss::InvertedLists& lists_;
    std::vector<Step> steps_;
};

} // namespace faiss_flash
