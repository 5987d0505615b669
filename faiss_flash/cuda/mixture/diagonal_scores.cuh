#pragma once

// What the two sides of a diagonal mixture's scores share; README.md derives
// it.

#include <cstdint>

namespace faiss_flash {
namespace diagonal {

constexpr int threads = 256;
/// h is lowered by 1 + ε, which pays for the rounding of x' and μ'; see
/// README.md. Listed components of SIFT rows, K = 1024, after 4 passes:
/// 3.99 for 1/32, 3.63 for 1/128, 3.57 for 1/256, and 3.27 that matter.
constexpr double epsilon = 1.0 / 128;
/// (δ − Δ)² ≤ 2δ² + 2Δ², times 1 + 1/ε; the last unit pays for rounding
constexpr double gain = 2 * (1 + 1 / epsilon) + 1;
constexpr float largest_norm = 1024; ///< of a component's halves

/// Bound on what the matrix unit loses, per |u||w|: it truncates, 1.06·2⁻²³
/// per step (see score_error).
__device__ inline float loss_per_norm(int d_padded) {
    return 1.06f * 0x1p-23f * (2 * d_padded + 64) * 1.02f;
}

/// Columns of a part, x' or x'².
inline int padded(int d) {
    return (d + 7) / 8 * 8;
}

inline unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

} // namespace diagonal
} // namespace faiss_flash
