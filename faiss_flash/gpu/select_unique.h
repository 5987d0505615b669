#pragma once

#include <cuda_runtime.h>

#include <faiss_flash/gpu/lists_view.h>

namespace faiss_flash {

/// Largest k of select_unique(): FAISS's own bound on the GPU.
constexpr int select_unique_max = 2048;

/** The k best candidates of every query, each id once.
 *
 * By (score, id), smallest first; of an id's copies the best one counts. Of
 * candidates with the score of the last result, those of earlier probes and
 * earlier entries are preferred. (Equal scores that fall into several of the
 * rounds below are in the order of ids in each.) Scores that are not below the
 * largest float (NaN too) are no results. The same bytes every run.
 *
 * One block per query, in rounds: the `wanted` best candidates that are left,
 * and a few more, are found by histograms of (score, place), sorted, and
 * those whose id is not in a hash table yet are results, until there are k.
 * Normally one round, that reads the scores three times: their range, the
 * histogram, and what lies below the threshold.
 *
 * All pointers on the device.
 *
 * @param scores     (probes.n, probes.stride)
 * @param copies     entries per id, about: k·copies are wanted in a round.
 *                   Too few cost more rounds, nothing else.
 * @param negate     whether results are the scores with the other sign
 * @param distances  (n, k); where there are fewer, the largest float (negate:
 *                   the lowest)
 * @param labels     (n, k); where there are fewer, −1
 */
cudaError_t select_unique(
        const ListsView& lists,
        const ProbesView& probes,
        const float* scores,
        int k,
        int copies,
        bool negate,
        float* distances,
        int64_t* labels,
        cudaStream_t stream);

} // namespace faiss_flash
