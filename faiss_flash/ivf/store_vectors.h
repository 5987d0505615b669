#pragma once

#include <functional>
#include <vector>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/list_transaction.h>

namespace faiss_flash {

// Ways to fill a transaction with all its vectors, in blocks that bound the
// memory for copies and codes to 32768 entries and 32 MiB of vectors.

/// Rows of dimension d, with m entries each, that make a block.
idx_t rows_per_block(size_t d, size_t m);

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
