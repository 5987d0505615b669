#pragma once

#include <cstddef>
#include <vector>

#include <hwy/aligned_allocator.h>

#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

/// A model laid out for the score kernels.
///
/// Every use of a model ranks centroids by an affine function of one dot
/// product, the score (larger is better), on vectors shifted by `offset`,
/// x' = x − o and c' = c − o:
///
///   s(x, c) = alpha_c + beta_c x'·c' + gamma_c ‖x'‖²
///
///   nearest, L2       −‖c'‖²                          2      0
///   nearest, product  0                               1      0 (o = 0)
///   log p(x, c)       log_scale_c − ‖c'‖²/(2σ²_c)     1/σ²_c  −1/(2σ²_c)
///
/// The offset (the median of the centroids) takes a common shift of the
/// data out of the cancellation between the three terms.
struct PackedModel {
    size_t k = 0;
    size_t d = 0;
    size_t width = 0;  ///< centroids per panel, two vectors of the target
    size_t panels = 0; ///< ⌈k / width⌉; padding centroids score −inf
    /// panel p, dimension j, column c: c'[p·width + c][j]; (panels, d, width)
    hwy::AlignedFreeUniquePtr<float[]> centroids;
    hwy::AlignedFreeUniquePtr<float[]> alpha, beta, gamma; ///< (panels·width)
    std::vector<float> offset;                             ///< (d)
    double max_norm2 = 0;                                  ///< max ‖c'‖²
    double max_precision = 0; ///< max 1/(2σ²), 0 without variances

    const float* panel(size_t p) const {
        return centroids.get() + p * d * width;
    }
};

enum class ScoreKind { nearest, log_density };

PackedModel pack_model(const Model& model, ScoreKind kind);

} // namespace faiss_flash
