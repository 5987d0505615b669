#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <faiss_flash/trainer/model.h>
#include <faiss_flash/trainer/statistics.h>

namespace faiss_flash {

/// One vector's share in one component: what an assignment leaves for the
/// update.
struct Share {
    uint32_t row;
    uint32_t component;
    float weight; ///< r_ik w_i
    float dist;   ///< ‖x_i − μ_k‖²; not used with diagonal variances
};

/** Fold shares into counts, sums and energy without contention.
 *
 * The shares are grouped by component (stable counting sort), then each
 * component is summed by one thread in row order, in double precision: the
 * result does not depend on the number of threads. The idea of replacing
 * scattered atomic updates by sorted segment sums is flash-kmeans'.
 * With diagonal variances the energies are summed from the differences, in
 * double precision as well. O(shares·d).
 */
class SegmentSums {
   public:
    /// @param blocks  shares of consecutive row blocks, in row order
    /// @param x       (rows, d)
    /// @param out     as reset for one or for d energies per component
    void add(
            const std::vector<std::vector<Share>>& blocks,
            size_t n_blocks,
            const float* x,
            const Model& model,
            Statistics& out);

   private:
    std::vector<size_t> starts_; ///< (k + 1)
    std::vector<Share> sorted_;
};

} // namespace faiss_flash
