#pragma once

// The operations that are compiled once per instruction set. Each is one
// file; the CPU picks at run time.

#include <cstddef>
#include <cstdint>
#include <vector>

#include <faiss_flash/cpu/packed_model.h>

namespace faiss_flash {

/// Rows that the score kernels take at once: a multiple of every
/// micro-kernel's height, small enough for the rows to stay in L2.
constexpr size_t row_block = 96;

/// Columns per panel on this CPU: two vectors.
size_t panel_width();

/// Name of the instruction set the kernels run with here.
const char* cpu_target_name();

/// A centroid and its score for some row.
struct Scored {
    uint32_t centroid;
    float score;
};

/// Scratch of one thread, reused from block to block and by every kernel.
struct ScoreScratch {
    hwy::AlignedFreeUniquePtr<float[]> rows;  ///< p(x'), see PackedModel
    size_t terms = 0;                         ///< that `rows` has room for
    hwy::AlignedFreeUniquePtr<float[]> state; ///< running best or tile
    std::vector<float> norms2;             ///< ‖x'‖² of the block's rows
    std::vector<Scored> picked[row_block]; ///< centroids per row
};

/// labels[i] = argmax_c s(x_i, c), the lowest number among equals, for up to
/// row_block rows. O(rows·k·d).
void best_centroids(
        const PackedModel& model,
        size_t rows,
        const float* x,
        uint32_t* labels,
        ScoreScratch& scratch);

/// scratch.picked[i] = the m ≤ k centroids with the largest scores, largest
/// first.
void top_centroids(
        const PackedModel& model,
        size_t rows,
        const float* x,
        size_t m,
        ScoreScratch& scratch);

/// scratch.picked[i] = every centroid whose score is within `range` of the
/// row's largest, in ascending number. The rounding of single-precision scores
/// is allowed for: more than those may be there, never fewer; none at all
/// where scores overflow single precision.
void close_centroids(
        const PackedModel& model,
        size_t rows,
        const float* x,
        float range,
        ScoreScratch& scratch);

/// ‖x − c‖² and x·c in single precision with several partial sums.
float l2_distance(const float* x, const float* c, size_t d);
float dot_product(const float* x, const float* c, size_t d);

/// Σ_j h_j (x_j − c_j)² in the same way.
float weighted_distance(
        const float* x,
        const float* c,
        const float* h,
        size_t d);

/// sums[j] += weight · x[j] in double precision.
void add_weighted(const float* x, double weight, size_t d, double* sums);

/// squares[j] += weight · (x[j] − c[j])² in double precision.
void add_weighted_squares(
        const float* x,
        const float* c,
        double weight,
        size_t d,
        double* squares);

} // namespace faiss_flash
