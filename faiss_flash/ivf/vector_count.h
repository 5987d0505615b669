#pragma once

#include <unordered_map>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/** How many vectors some posting-list entries belong to, where a vector may
 * have copies in several lists.
 *
 * Copies share their vector's id and no list has two of them. So an id counts
 * as often as it is found in the list that has it most often. That is exact
 * if every id belongs to one vector, and the least it can be where the caller
 * added several vectors under one id.
 *
 * Without copies every entry is a vector.
 */
class VectorCount {
   public:
    explicit VectorCount(bool has_copies) : has_copies_(has_copies) {}

    /// Lists one after the other.
    void add(idx_t list, idx_t id) {
        if (!has_copies_) {
            n_++;
            return;
        }
        Count& count = counts_[id];
        if (count.list != list) {
            count.list = list;
            count.in_list = 0;
        }
        if (++count.in_list > count.largest) {
            count.largest = count.in_list;
            n_++;
        }
    }

    size_t vectors() const {
        return n_;
    }

   private:
    struct Count {
        idx_t list = -1;
        size_t in_list = 0, largest = 0;
    };
    const bool has_copies_;
    size_t n_ = 0;
    std::unordered_map<idx_t, Count> counts_;
};

/// fn(id) for every entry, list after list.
template <class Fn>
void for_each_id(const faiss::InvertedLists& lists, Fn&& fn) {
    for (size_t list = 0; list < lists.nlist; list++) {
        const size_t n = lists.list_size(list);
        if (n == 0) {
            continue;
        }
        const faiss::InvertedLists::ScopedIds ids(&lists, list);
        for (size_t i = 0; i < n; i++) {
            fn(ids[i]);
        }
    }
}

/// Different ids in the lists. O(entries); memory: a bit per id where ids are
/// dense, 8 bytes per entry otherwise.
size_t count_distinct_ids(const faiss::InvertedLists& lists);

/// −1 if there is none.
idx_t largest_id(const faiss::InvertedLists& lists);

} // namespace faiss_flash
