#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_flash {

/// The ids one query has met: open addressing with linear probing, at most
/// half full. Every slot carries the number of the query that filled it, so
/// that clear() costs nothing; memory follows the largest query, not the
/// index. Any int64_t is a valid id.
class VisitedSet {
   public:
    VisitedSet() : slots_(size_t(1) << initial_bits) {}

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

    size_t size() const {
        return size_;
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

} // namespace faiss_flash
