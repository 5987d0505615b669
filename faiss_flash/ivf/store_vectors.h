#pragma once

#include <functional>
#include <vector>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/engine/engine.h>
#include <faiss_flash/list_transaction.h>

namespace faiss_flash {

// Ways to fill a transaction with all its vectors, in blocks that bound the
// memory for copies and codes to 32768 entries and 32 MiB of vectors.

/// Rows of dimension d, with m entries each, that make a block.
idx_t rows_per_block(size_t d, size_t m);

/** The lists of n vectors by a policy, for callers that go through these in
 * order in blocks of rows_per_block(d, policy.list_limit()). Many blocks are
 * assigned in one call, because engines other than the CPU's are slow to
 * start: what a CPU does in about a second. Memory: 16 MiB.
 */
class PolicyLists {
   public:
    /// @param x  (n, d), finite; the policy and x must outlive this
    PolicyLists(
            const FlashOptions& options,
            Model centroids,
            idx_t n,
            const float* x);

    /// Lists of row i0 and those after it in its block, (rows, list_limit()).
    const idx_t* of(idx_t i0);

   private:
    const AssignmentPolicy& policy_;
    Model centroids_;
    const Engine& engine_;
    idx_t n_;
    const float* x_;
    idx_t at_once_; ///< whole blocks
    idx_t first_ = 0;
    std::vector<idx_t> lists_; ///< of rows [first_, first_ + at_once_)
};

/// Lists by options.policy.
/// @param model  called if the policy needs the centroids
/// @param x      (n, d), finite
void store_by_policy(
        ListTransaction& transaction,
        const faiss::IndexIVF& index,
        const FlashOptions& options,
        const std::function<Model()>& model,
        idx_t n,
        const float* x);

/// The caller's lists, (n, m).
void store_in_lists(
        ListTransaction& transaction,
        const faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        int m,
        const idx_t* lists);

/// Codes as sa_encode gives them, (n, sa_code_size()), list first.
void store_sa_codes(
        ListTransaction& transaction,
        const faiss::IndexIVF& index,
        idx_t n,
        const uint8_t* codes);

/// Rows of an update: each id once, with its last row.
struct LastRows {
    std::vector<idx_t> ids;
    const float* x; ///< (ids.size(), d): the caller's or `kept`
    std::vector<float> kept;
};

/// Throws unless the index has a direct map that knows all n ids.
LastRows last_rows(
        const faiss::IndexIVF& index,
        idx_t n,
        const idx_t* ids,
        const float* x);

} // namespace faiss_flash
