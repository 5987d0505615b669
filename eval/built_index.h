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
    double copies = 1;           ///< posting-list entries per vector
    double bytes_per_vector = 0; ///< codes and ids of all copies
    double code_train_s = 0;     ///< of the codec alone
    double add_s = 0;
};

/// Wrap the trained centroids in the method's index class, train its codes
/// on x (n, d) and add x, with a progress bar.
BuiltIndex build_index(
        const Method& method,
        const AssignmentPolicy& policy,
        const Codec& codec,
        const TrainingOptions& options,
        const TrainedQuantizer& trained,
        size_t n,
        size_t d,
        const float* x);

} // namespace faiss_flash
