#pragma once

#include <faiss_flash/cuda/policies/choose_lists.cuh>
#include <faiss_flash/cuda/policies/shortlist.cuh>

namespace faiss_flash {

/// Shortlists of rows [first, first + n), and what they say of distances.
struct ShortlistView {
    ShortlistOutput lists;
    ShortlistGroups groups;
    const ShortlistTerms* terms = nullptr;
    const float* norm = nullptr;  ///< of the rows, see PreparedRows
    const float* error = nullptr;
    float unit = 1; ///< a prepared dist per one of the vectors as given
};

/** Lists of rows whose candidates are in shortlists, for rules that look at
 * distances: where keys leave it open by distances in difference form.
 *
 * @param to      (all rows, limit)
 * @param open    rows whose candidates may not all be there, any order
 * @param n_open  is added to
 */
cudaError_t launch_choose_shortlist(
        const ChooseInput& in,
        const ShortlistView& from,
        int64_t n,
        int64_t first,
        idx_t* to,
        uint32_t* open,
        uint32_t* n_open,
        cudaStream_t stream);

} // namespace faiss_flash
