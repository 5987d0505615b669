#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace faiss_flash {

/// A set of ids in a hash table: open addressing with linear probing, at most
/// half full. Every slot carries the number of the query that filled it, so
/// that clear() costs nothing; memory follows the largest query, not the
/// index. Any int64_t is a valid id.
class HashedIds {
   public:
    HashedIds() : slots_(size_t(1) << initial_bits) {}

    /// Forget everything. O(1).
    void clear() {
        size_ = 0;
        epoch_++;
        if (epoch_ == 0) {
            // after 2³² queries stamps would be taken for fresh ones
            for (Slot& slot : slots_) {
                slot.epoch = 0;
            }
            epoch_ = 1;
        }
    }

    /// True if `id` was not in the set; it is now. Amortised O(1).
    bool insert(int64_t id) {
        if (!place(id)) {
            return false;
        }
        if (++size_ * 2 > slots_.size()) {
            grow();
        }
        return true;
    }

   private:
    static constexpr int initial_bits = 10;

    struct Slot {
        int64_t id = 0;
        uint32_t epoch = 0; // 0: never filled
    };

    bool place(int64_t id) {
        // Fibonacci hashing: the product's high bits depend on all of id's
        size_t i = (uint64_t(id) * 0x9e3779b97f4a7c15ULL) >> shift_;
        while (slots_[i].epoch == epoch_) {
            if (slots_[i].id == id) {
                return false;
            }
            i = (i + 1) & (slots_.size() - 1);
        }
        slots_[i].id = id;
        slots_[i].epoch = epoch_;
        return true;
    }

    void grow() {
        std::vector<Slot> old(slots_.size() * 2);
        old.swap(slots_);
        shift_--;
        for (const Slot& slot : old) {
            if (slot.epoch == epoch_) {
                place(slot.id);
            }
        }
    }

    std::vector<Slot> slots_;
    size_t size_ = 0;
    uint32_t epoch_ = 1;
    int shift_ = 64 - initial_bits;
};

/** The ids one query has met. Any int64_t is a valid id.
 *
 * Ids in [0, n_dense) have a bit each, all others are hashed. A bit needs no
 * search for its place, so there is no branch that depends on the ids, and
 * the bits of some million ids fit the second-level cache. Memory: 3/16 of a
 * byte per dense id.
 */
class VisitedSet {
   public:
    explicit VisitedSet(size_t n_dense = 0)
            : n_dense_(n_dense),
              words_((n_dense + 63) / 64),
              touched_(new uint32_t[words_.size() + 1]) {}

    /// Forget everything. O(1 + min(dense ids met, n_dense / 64)).
    void clear() {
        if (n_touched_ > words_.size() / 8) {
            std::fill(words_.begin(), words_.end(), 0);
        } else {
            for (size_t i = 0; i < n_touched_; i++) {
                words_[touched_[i]] = 0;
            }
        }
        n_touched_ = 0;
        hashed_.clear();
    }

    /// True if `id` was not in the set; it is now. Amortised O(1).
    bool insert(int64_t id) {
        bool fresh = false;
        insert_each(
                1,
                &id,
                [](int64_t) { return true; },
                [&](size_t, bool first) { fresh = first; });
        return fresh;
    }

    /** Insert those of ids (n) that wanted(id) is true for, in their order,
     * and tell each(j, fresh) about every one: fresh if ids[j] is wanted and
     * was not in the set. Neither may call the set.
     */
    template <class Wanted, class Each>
    void insert_each(
            size_t n,
            const int64_t* ids,
            const Wanted& wanted,
            const Each& each) {
        // in registers: the compiler cannot know what stores to words change
        uint64_t* const words = words_.data();
        uint32_t* const touched = touched_.get();
        const size_t n_dense = n_dense_;
        size_t n_touched = n_touched_;
        for (size_t j = 0; j < n; j++) {
            const uint64_t id = uint64_t(ids[j]);
            bool fresh = false;
            if (!wanted(ids[j])) {
                // not met
            } else if (id < n_dense) { // no negative one is
                const uint64_t old = words[id >> 6];
                const uint64_t bit = uint64_t(1) << (id & 63);
                words[id >> 6] = old | bit;
                touched[n_touched] = uint32_t(id >> 6);
                n_touched += old == 0;
                fresh = (old & bit) == 0;
            } else {
                fresh = hashed_.insert(ids[j]);
            }
            each(j, fresh);
        }
        n_touched_ = n_touched;
    }

   private:
    size_t n_dense_;
    std::vector<uint64_t> words_;         // bit i: id i was met
    std::unique_ptr<uint32_t[]> touched_; // which words are not 0, and room
    size_t n_touched_ = 0;                // for one more
    HashedIds hashed_;
};

} // namespace faiss_flash
