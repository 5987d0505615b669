#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <datasets/dataset.h>

namespace faiss_flash {

/// The k nearest base vectors of every query.
struct GroundTruth {
    size_t nq = 0, k = 0;
    /// (nq, k), nearest first; equal distances by ascending id.
    std::vector<int64_t> ids;
    /// (nq, k): squared L2 distance, or 1 - cosine for Angular (1 for a base
    /// vector of zeros).
    std::vector<double> dist;
};

struct GroundTruthOptions {
    /// Base rows read and searched at a time.
    size_t block_rows = 65536;
    /// Called after every block with the rows done so far.
    std::function<void(size_t)> progress;
};

/// Exact nearest neighbours of `queries` (nq, base.d()) among the rows of
/// `base`, which is streamed, never held.
///
/// FAISS's flat index finds candidates in float, slightly more than k. Their
/// distances are then computed again in double, from the stored components,
/// and decide. Rounding in the first step cannot hide a neighbour: where the
/// worst candidate is not farther than the k-th neighbour by more than a
/// bound on FAISS's rounding error, the whole block is searched in double.
/// So the result is that of a brute force in double, in any block size and
/// with any number of threads.
///
/// Memory: two blocks of base rows (Angular: three) and O(nq k). Time: 2 nq n d
/// flops in BLAS, plus the double-precision searches data with many equal
/// distances needs.
///
/// Throws faiss::FaissException for k outside [1, n], nq = 0, block_rows =
/// 0, vectors that are not finite, and (Angular) queries that are zero.
GroundTruth exact_ground_truth(
        const VectorFile& base,
        size_t nq,
        const float* queries,
        size_t k,
        DatasetMetric metric,
        const GroundTruthOptions& options = {});

} // namespace faiss_flash
