#pragma once

#include <vector>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// Some entries of an index's posting lists.
struct FoundEntries {
    /// one per list that has any, ascending
    struct OfList {
        idx_t list;
        std::vector<size_t> offsets; // ascending, each once
        std::vector<idx_t> ids;      // in that order
    };
    std::vector<OfList> lists;
    /// vectors they belong to, see VectorCount
    size_t vectors = 0;
};

/** All entries whose ids the selector takes.
 *
 * With a direct map and without copies, the entries of an IDSelectorArray or
 * IDSelectorBatch are looked up. Otherwise all ids in the lists are passed
 * over: O(entries), parallel over lists. Selectors are asked from several
 * threads.
 */
FoundEntries find_entries(
        const faiss::IndexIVF& index,
        bool has_copies,
        const faiss::IDSelector& sel);

} // namespace faiss_flash
