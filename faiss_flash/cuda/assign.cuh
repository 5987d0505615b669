#pragma once

// What the assignment kernels share: their inputs, and what they do with the
// two best scores of a row.

#include <cuda_fp16.h>

#include <cstdint>

#include <faiss_flash/cuda/assign_keys.cuh>
#include <faiss_flash/cuda/prepare.cuh>

namespace faiss_flash {

/// A set of rows prepared for half-precision products; all on the device.
struct PreparedRows {
    int64_t n = 0;
    int d = 0;                      ///< dimensions, as given
    int d_padded = 0;               ///< row length of `halves`, multiple of 8
    const __half* halves = nullptr; ///< x' rounded, (n, d_padded)
    const float* norm = nullptr;    ///< ‖x'‖, rounded up, (n)
    const float* error = nullptr;   ///< ‖x' − halves‖, rounded up, (n)
    /// what the scores are made for, see prepare.cuh
    const TypicalRow* typical = nullptr;

    /// Rows [first, first + count).
    PreparedRows slice(int64_t first, int64_t count) const {
        PreparedRows part = *this;
        part.n = count;
        part.halves += first * d_padded;
        part.norm += first;
        part.error += first;
        return part;
    }
};

/// Centroids prepared the same way, with their scores for one set of rows.
///
/// For L2 and for products let
///   Q(x, c) = base + ‖c'‖² − 2 x'·c'   or   base − x'·c',
/// base = X² or X·max‖c'‖ with X the typical row's largest_norm: smallest for
/// the best centroid, and not negative for rows up to X. The kernels compute
///   q(x, c) = alpha_c + beta·(halves of x')·(halves of c'),
/// which is Q in units of 1/scale and moved into the range of keys (see
/// ScoreTerms), with score_error() of a typical row and centroid c already
/// subtracted: q(x, c) ≤ Q(x, c) for every row within the typical norm and
/// error. So a centroid whose q exceeds an upper bound of Q for the best one
/// is out of the running.
struct PreparedCentroids {
    int k = 0;
    int k_padded = 0;               ///< multiple of assign_columns
    bool l2 = true;                 ///< or products
    const __half* halves = nullptr; ///< (k_padded, d_padded)
    /// (k_padded), +inf in the padding and for centroids that are too far
    /// out to be any row's
    const float* alpha = nullptr;
    const float* norm = nullptr;        ///< ‖c'‖, rounded up, (k_padded)
    const float* error = nullptr;       ///< ‖c' − halves‖, rounded up
    const ScoreTerms* terms = nullptr;  ///< on the device
    uint32_t key_factor = 1u << key_column_bits; ///< see make_key
};

/// Per row: the best centroid, and whether the score proves it.
struct AssignOutput {
    uint32_t* labels = nullptr;
    float* threshold = nullptr;   ///< of unproved rows: candidates' scores
    uint32_t* unproved = nullptr; ///< their numbers, any order
    uint32_t* n_unproved = nullptr;
};

/// The two best scores of a row and the centroid of the best.
struct RowBest {
    uint32_t best, second; ///< keys, see assign_keys.cuh
    int column;

    __device__ void
    merge(uint32_t other_best, uint32_t other_second, int other) {
        if (other_best < best || (other_best == best && other < column)) {
            column = other;
        }
        second = min(min(second, other_second), max(best, other_best));
        best = min(best, other_best);
    }
};

/// Merge what the four lanes that share a row have; all of them get it.
__device__ inline RowBest merge_lanes(const Top2& top) {
    const int lane = threadIdx.x % 4;
    const int within = top.best & key_column_mask;
    RowBest row = {top.best, top.second, 0};
    row.column = top.tile * assign_columns + 8 * (within / 2) + 2 * lane +
            within % 2;
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        const uint32_t best = __shfl_xor_sync(0xffffffff, row.best, step);
        const uint32_t second = __shfl_xor_sync(0xffffffff, row.second, step);
        const int column = __shfl_xor_sync(0xffffffff, row.column, step);
        row.merge(best, second, column);
    }
    return row;
}

/// Write a row's label, and note it for the re-check unless proved.
__device__ inline void write_row(
        const RowBest& found,
        int64_t row,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out) {
    const int label = min(found.column, centroids.k - 1);
    const float row_norm = rows.norm[row], row_error = rows.error[row];
    const TypicalRow usual = *rows.typical;
    const ScoreTerms terms = *centroids.terms;
    auto error_of = [&](float x_norm, float x_error, float norm, float error) {
        return score_error(
                centroids.l2, rows.d, x_norm, x_error, norm, error);
    };
    // Q of the chosen centroid is at most q plus its error, there and back
    const float norm = centroids.norm[label], error = centroids.error[label];
    float margin = error_of(usual.norm, usual.error, norm, error) +
            error_of(row_norm, row_error, norm, error);
    if (!(row_norm <= usual.norm && row_error <= usual.error)) {
        // the others' q allowed for less than this row's errors
        margin += error_of(
                row_norm, row_error, terms.largest_norm, terms.largest_error);
    }
    const float best = key_score(found.best);
    const float second = key_score(found.second);
    const float slack = terms.scale * margin + score_rounding;
    const bool alone = found.second >= key_none; // no second centroid
    // beyond, scores may lie outside the range of keys
    const bool ordered = row_norm <= usual.largest_norm;
    out.labels[row] = label;
    // written so that NaN counts as unproved
    if (!(ordered && (alone || second - best > slack))) {
        out.threshold[row] = ordered ? best + slack : INFINITY;
        out.unproved[atomicAdd(out.n_unproved, 1u)] = row;
    }
}

} // namespace faiss_flash
