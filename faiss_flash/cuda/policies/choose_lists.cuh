#pragma once

// Assignment policies on the device: listed candidates, or all centroids, to
// the posting lists of each row.

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/cuda/mixture/prepare.cuh>

namespace faiss_flash {

/// Candidates are found on the device for up to this many per row.
constexpr int choose_most = 16;

/// A policy, the model and the rows it is applied to; all on the device.
struct ChooseInput {
    AssignmentRule rule;
    int limit = 1;      ///< lists per row
    int candidates = 1; ///< the best ones that the rule looks at
    bool strict = false;
    double log_tau = 0; ///< −inf: as many lists as there may be
    double lambda = 0;
    double reach = 0; ///< closure: (1 + ε)², candidates have no larger dist
    int d = 0, k = 0;
    const float* x = nullptr;     ///< (all rows, d)
    const float* means = nullptr; ///< (k, d)
    /// (k) responsibilities decide; nullptr: distances
    const ComponentTerms* components = nullptr;
    /// 1 / 2σ² of a diagonal mixture, (k, d), for launch_choose_of_all();
    /// its components have a precision of 1
    const float* half_precisions = nullptr;
    /// (k, k) ‖c − c'‖² for rules that ask for it; nullptr: computed
    const float* between = nullptr;

    /// Vectors of four floats can be read.
    bool aligned() const {
        return d % 4 == 0 &&
                (reinterpret_cast<uintptr_t>(x) |
                 reinterpret_cast<uintptr_t>(means)) %
                        16 ==
                0;
    }
};

/** Lists of rows whose candidates are listed, by distances in difference
 * form. Ties: the lowest number is the nearer one.
 *
 * @param first     row of the first list, where they are consecutive
 * @param numbers   else the row of each, or nullptr
 * @param parts     see RowLists
 * @param to        (all rows, limit)
 * @param left      rows whose list was too short; count is added to
 */
cudaError_t launch_choose_listed(
        const ChooseInput& in,
        int64_t n,
        int64_t first,
        const uint32_t* numbers,
        int parts,
        const ListOutput& lists,
        idx_t* to,
        uint32_t* left,
        uint32_t* n_left,
        cudaStream_t stream);

/// Lists of the given rows by comparing them with everything.
/// @param values  (count, k) scratch
cudaError_t launch_choose_of_all(
        const ChooseInput& in,
        int64_t count,
        const uint32_t* numbers,
        double* values,
        idx_t* to,
        cudaStream_t stream);

/// ‖c − c'‖² of all pairs of centroids; (k, k).
/// @param in  means, d and k
cudaError_t launch_between(
        const ChooseInput& in,
        float* between,
        cudaStream_t stream);

/// Labels as the only list of each row, −1 in the other places.
cudaError_t launch_only_lists(
        int64_t n,
        int limit,
        const uint32_t* labels,
        idx_t* to,
        cudaStream_t stream);

} // namespace faiss_flash
