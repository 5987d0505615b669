#pragma once

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

// What the calls of an IVF index check before they do anything. FAISS finds
// some of it inside parallel regions, where 1.7.3 dies of exceptions. Each
// throws a FaissException that starts with the operation or names the
// argument, with its value and bound.

/// Metric, quantizer, and lists with one code after the other.
void check_ready(const char* operation, const faiss::IndexIVF& index);

void check_trained(const char* operation, const faiss::Index& index);

/// n ≥ least vectors, all finite.
void check_vectors(
        const char* operation,
        const faiss::Index& index,
        idx_t n,
        idx_t least,
        const float* x);

/// All that a search needs but its parameters.
void check_queries(const faiss::IndexIVF& index, idx_t n, const float* x);

void check_parallel_mode(const faiss::IndexIVF& index, bool range);

/// nprobe, and the lists chosen for n queries.
void check_keys(
        const faiss::IndexIVF& index,
        idx_t n,
        const idx_t* keys,
        const faiss::IVFSearchParameters* params);

/// The lists, (n, m), that a caller chose for n vectors: below nlist, each
/// once in a row.
void check_own_lists(
        const char* operation,
        const faiss::IndexIVF& index,
        idx_t n,
        int m,
        const idx_t* lists);

} // namespace faiss_flash
