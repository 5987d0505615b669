#pragma once

#include <vector>

#include <faiss/invlists/DirectMap.h>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/** Changes to FAISS's direct map, made all at once by apply().
 *
 * The map has one slot per id; where a vector has copies it names one of
 * them. Ids removed from an array leave slots of −1.
 */
class DirectMapEdit {
   public:
    explicit DirectMapEdit(faiss::DirectMap& map) : map_(map) {}

    /// The id is gone from all lists.
    void erase(idx_t id);
    /// An entry moved within its list.
    void move(idx_t id, idx_t list, size_t from, size_t to);
    /// The id's vector is at `place` (faiss::lo_build), −1: in no list.
    void set(idx_t id, int64_t place);

    /// What was erased, then moved, then set. If it throws (no memory), the
    /// map is as it was.
    void apply();

   private:
    struct Moved {
        idx_t id;
        int64_t from, to;
    };
    struct Set {
        idx_t id;
        int64_t place;
    };
    void apply_to_array();
    void apply_to_hashtable();

    faiss::DirectMap& map_;
    std::vector<idx_t> erased_;
    std::vector<Moved> moved_;
    std::vector<Set> set_;
};

/// Where the map says the id is, −1 if it does not know.
int64_t place_of(const faiss::DirectMap& map, idx_t id);

/// The first of the ids that vectors added without ids get: ntotal, or with
/// an array map the first without a slot (the same unless vectors were
/// removed).
idx_t next_id(const faiss::IndexIVF& index);

} // namespace faiss_flash
