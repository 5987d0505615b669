#pragma once

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/** Groups of vectors that have the same code in the same list, as
 * faiss::IndexIVFPQ::find_duplicates gives them; of a vector with copies only
 * the one in the lowest list is looked at, so that it is in one group at
 * most.
 *
 * @param ids   (entries of different vectors)
 * @param lims  (groups + 1): group g is ids[lims[g], lims[g + 1])
 * @return      the number of groups
 */
size_t find_equal_codes(
        const faiss::IndexIVF& index,
        bool has_copies,
        idx_t* ids,
        size_t* lims);

} // namespace faiss_flash
