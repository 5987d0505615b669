#pragma once

#include <vector>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/ivf/list_mixture.h>
#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

// The coarse quantizer of an IVF index: its training and its centroids.

/// Whether FAISS would keep the quantizer as it is.
bool quantizer_is_ready(const faiss::IndexIVF& index);

/** Train the quantizer as options.trainer says; quantizer_trains_alone,
 * clustering_index and cp mean what they mean in FAISS. A failure may leave
 * the quantizer changed: see QuantizerRestore.
 */
ListMixture train_coarse_quantizer(
        faiss::IndexIVF& index,
        const FlashOptions& options,
        idx_t n,
        const float* x);

/// Bring `mixture` in agreement with a quantizer that is ready: a
/// MixtureQuantizer's own comes first and is otherwise told; if the policy
/// needs one and none is known it is estimated from at most 256·nlist rows.
void complete_mixture(
        faiss::IndexIVF& index,
        const FlashOptions& options,
        idx_t n,
        const float* x,
        ListMixture& mixture);

/// The quantizer's centroids; with a MixtureQuantizer's mixture or else with
/// the given one, if it has entries for all of them.
Model coarse_model(
        const faiss::IndexIVF& index,
        const std::vector<float>& variances,
        const std::vector<float>& mixing_weights);

} // namespace faiss_flash
