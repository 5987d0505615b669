#pragma once

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/ivf/list_mixture.h>

namespace faiss_flash {

// This library's training and assignment for any faiss::IndexIVF: FastScan,
// RaBitQ, additive quantizers and whatever else has no class of its own here.
// IndexUnique does all of it for one index.

/** Train the coarse quantizer of `index` as options.trainer says. The codes
 * are left to index.train(n, x), which finds the quantizer ready. A quantizer
 * that already holds nlist vectors is kept as it is.
 *
 * Fields of the index that FAISS's training obeys (cp, quantizer_trains_alone,
 * clustering_index) are obeyed here. On an exception the quantizer is as it
 * was.
 *
 * @param x  (n, d), finite
 * @return   what add_with_policy needs for the rule `responsibility`; empty
 *           if neither the trainer nor the policy gives or needs it
 */
ListMixture train_quantizer(
        faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        const FlashOptions& options = {});

/** Store each vector in the lists that options.policy gives.
 *
 * index.ntotal grows by n, the number of vectors; the lists grow by the
 * number of copies. FAISS's searches over such an index return copies as
 * duplicates: search through IndexUnique. FAISS's remove_ids subtracts copies
 * from ntotal: remove through IndexUnique.
 *
 * Codes are made by index.add_with_ids, which sees every copy as a vector of
 * its own, in blocks of at most 32768 copies. Memory that runs out may leave
 * copies in the lists that ntotal does not count, as in FAISS.
 *
 * Throws for vectors that would get several lists if the index has a direct
 * map, or if it is an IndexIVFPQR or IndexIVFFlatDedup, which keep one record
 * per vector. While it runs, index.quantizer points elsewhere: no other
 * thread may use the index.
 *
 * @param x        (n, d), finite
 * @param ids      (n), or nullptr: ntotal, ntotal + 1, ...
 * @param mixture  needed for the rule `responsibility`, unless the quantizer
 *                 is a MixtureQuantizer
 */
void add_with_policy(
        faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        const idx_t* ids,
        const FlashOptions& options = {},
        const ListMixture& mixture = {});

} // namespace faiss_flash
