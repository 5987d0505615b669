#pragma once

// Vectors to halves with a measure of what rounding cost each of them.

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include <faiss_flash/trainer/vector_type.h>

namespace faiss_flash {

/// x' = (x − offset)·scale, rounded to halves (clamped to their range).
struct Shift {
    const float* offset; ///< (d), on the device
    float scale;         ///< a power of two
};

/// Norm and rounding error that the scores of a set of rows allow for; rows
/// beyond are still right, only proved less often.
struct TypicalRow {
    float norm;         ///< min(largest, 1.5 · mean)
    float error;        ///< the same of the errors
    float largest_norm; ///< min(largest, 4 · mean): scores stay positive
};

constexpr int assign_columns = 128; ///< centroids per tile

/// What brings the scores of a set of rows and centroids into the range of
/// keys: q in [2¹⁷, 2²⁵), see assign_keys.cuh and PreparedCentroids.
struct ScoreTerms {
    float beta;          ///< −2 or −1, times scale
    float scale;         ///< a power of two
    float largest_norm;  ///< of the centroids
    float largest_error; ///< of the centroids
};

/// Rounding of two such scores, of their alphas and last additions: half a
/// unit in the last place, at most 1, of each.
constexpr float score_rounding = 4;

/// Largest |q + error − Q| for a row and a centroid of these norms and
/// rounding errors; README.md derives it.
__device__ inline float score_error(
        bool l2,
        int d,
        float row_norm,
        float row_error,
        float norm,
        float error) {
    const float product = row_norm * norm;
    // rounding of the operands to halves, and of x' and c' to float
    const float operands = row_error * norm + row_norm * error +
            row_error * error + 0x1p-22f * product;
    // accumulation on the matrix unit truncates: 1.06·2⁻²³ per step
    const float accumulation = 1.06f * 0x1p-23f * (d + 16) * product;
    // alpha and the last addition
    const float sum = row_norm + norm;
    return (l2 ? 2 : 1) * (operands + accumulation) + 0x1p-21f * sum * sum;
}

/// `count` coordinates of any type as floats.
cudaError_t launch_to_floats(
        int64_t count,
        const DeviceVectors& from,
        float* to,
        cudaStream_t stream);

/// halves (n, d_padded) with zeros beyond d; norm ‖x'‖ and error
/// ‖x' − halves‖ in single precision, both rounded up; (n) each; and the
/// typical row.
/// @param scratch  prepare_scratch_bytes
cudaError_t launch_prepare_rows(
        int64_t n,
        int d,
        int d_padded,
        const DeviceVectors& x,
        Shift shift,
        __half* halves,
        float* norm,
        float* error,
        TypicalRow* typical,
        void* scratch,
        cudaStream_t stream);

constexpr size_t prepare_scratch_bytes = 1 << 14;

/// The same for k centroids, with k_padded rows (the last ones zero), and
/// their squared norms.
cudaError_t launch_prepare_centroids(
        int k,
        int k_padded,
        int d,
        int d_padded,
        const float* centroids,
        Shift shift,
        __half* halves,
        float* norm,
        float* error,
        float* norm2,
        cudaStream_t stream);

/// alpha (k_padded), see PreparedCentroids, and the terms that go with it.
cudaError_t launch_alpha(
        int k,
        int k_padded,
        int d,
        bool l2,
        const TypicalRow* typical,
        const float* norm,
        const float* error,
        const float* norm2,
        float* alpha,
        ScoreTerms* terms,
        cudaStream_t stream);

} // namespace faiss_flash
