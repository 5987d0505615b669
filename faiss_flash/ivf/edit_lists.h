#pragma once

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

// Whole lists moved or copied between indexes; all or nothing.

/** Move the entries of `other` to the lists of `index`, other's ids + add_id.
 * Lists go over one after the other, so that no more than one is held twice.
 * What FAISS checks before a merge was checked.
 */
void move_entries(faiss::IndexIVF& index, faiss::IndexIVF& other, idx_t add_id);

/** Append some of the vectors of `index` to the lists of `target`.
 *
 * FAISS's subset types, in terms of vectors. With T = ntotal, and a vector's
 * first copy the one in the lowest list:
 *
 * - 0: ids in [a1, a2)
 * - 1: ids with id % a1 == a2
 * - 2: of all first copies the numbers a1 to a2 − 1, counted in an order in
 *   which every list has its turn in proportion to its length: a2 − a1
 *   vectors, if every id is one vector; for 0 = s_0 <= ... <= s_p = T the
 *   parts [s_i, s_{i+1}) are disjoint and together everything
 * - 3: of every list's first copies the part [a2/a1, (a2 + 1)/a1)
 * - 4: the lists [a1, a2) with what they hold: the only type under which a
 *   vector may leave copies behind
 *
 * Under 2 and 3 all copies follow their vector's first. FAISS 1.7.3 has types
 * 0 to 2 only.
 *
 * Throws for a type or bounds out of range, for indexes of other nlist or
 * code size, if target has a direct map, or is `index` itself.
 *
 * @return  vectors copied, which target.ntotal has grown by
 */
size_t copy_vectors(
        const faiss::IndexIVF& index,
        bool has_copies,
        faiss::IndexIVF& target,
        int subset_type,
        idx_t a1,
        idx_t a2);

} // namespace faiss_flash
