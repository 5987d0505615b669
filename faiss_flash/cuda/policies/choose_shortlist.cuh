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
    float unit = 1; ///< a dist of the vectors as given per prepared one
    // the policy's, in single precision: set by launch_choose_shortlist()
    float lambda = 0, air_part = 0, reach = 0;
};

/// Numbers of rows, in any order, and how many; on the device.
struct RowCount {
    uint32_t* rows = nullptr;
    uint32_t* count = nullptr;

    __device__ void add(uint32_t row) const {
        rows[atomicAdd(count, 1u)] = row;
    }
};

/** Lists of rows whose candidates are in shortlists, for rules that look at
 * distances: where keys leave it open by distances in difference form.
 *
 * @param to         (all rows, limit)
 * @param unsettled  rows that take more than keys; scratch, (n)
 * @param open       rows whose candidates may not all be there, any order;
 *                   its count is added to
 */
cudaError_t launch_choose_shortlist(
        const ChooseInput& in,
        const ShortlistView& from,
        int64_t n,
        int64_t first,
        idx_t* to,
        const RowCount& unsettled,
        const RowCount& open,
        int multiprocessors,
        cudaStream_t stream);

} // namespace faiss_flash
