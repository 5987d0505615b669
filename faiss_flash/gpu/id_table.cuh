#pragma once

#include <cstdint>

namespace faiss_flash {

/** Ids met so far: a slot holds the index of an id in `ids`, or −1; of equal
 * ids the lowest index stays.
 */
struct IdTable {
    int* slots;
    int mask;
    const int64_t* ids;

    __device__ int first_slot(int64_t id) const {
        uint64_t hash = (uint64_t)id * 0x9e3779b97f4a7c15ull;
        return (int)(hash >> 40) & mask;
    }
    __device__ void insert(int index) {
        const int64_t id = ids[index];
        for (int slot = first_slot(id);; slot = (slot + 1) & mask) {
            const int other = atomicCAS(&slots[slot], -1, index);
            if (other == -1) {
                return;
            }
            if (ids[other] == id) {
                atomicMin(&slots[slot], index);
                return;
            }
        }
    }
    /// Where the id of this index is; it has been inserted.
    __device__ int find(int index) const {
        const int64_t id = ids[index];
        int slot = first_slot(id);
        while (ids[slots[slot]] != id) {
            slot = (slot + 1) & mask;
        }
        return slot;
    }
};

} // namespace faiss_flash
