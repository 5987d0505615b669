#pragma once

#include <memory>

#include <eval/counting_quantizer.h>
#include <eval/methods.h>
#include <eval/trained_quantizer.h>

namespace faiss_flash {

/// An index of one method and codec, filled, ready to be measured.
struct BuiltIndex {
    std::unique_ptr<CountingQuantizer> quantizer; ///< used by `ivf`
    std::unique_ptr<faiss::IndexIVF> ivf;
    /// of `ivf`; nullptr for stock FAISS, which has indexIVF_stats instead
    SearchCounters* counters = nullptr;
    double copies = 1;       ///< posting-list entries per vector
    double code_train_s = 0; ///< of the codec alone, by whichever index did it
    double add_s = 0;

    /// Codes and ids of all copies, and the raw vector if `codec` re-ranks.
    double bytes_per_vector(const Codec& codec) const;
};

/** Wrap the trained centroids in the method's index class, train its codes
 * on x (n, d) and add x, with a progress bar.
 *
 * A product quantizer learns from residuals to the nearest centroid, whatever
 * the policy: it is trained by the first index with these centroids, kept in
 * `trained`, and copied by those that follow.
 */
BuiltIndex build_index(
        const Method& method,
        const AssignmentPolicy& policy,
        const Codec& codec,
        const TrainingOptions& options,
        TrainedQuantizer& trained,
        size_t n,
        size_t d,
        const float* x);

} // namespace faiss_flash
