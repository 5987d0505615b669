#pragma once

#include <cstddef>
#include <vector>

#include <hwy/aligned_allocator.h>

#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

/// A model laid out for the score kernels.
///
/// Every use of a model ranks centroids by an affine function of one dot
/// product, the score (larger is better), on vectors shifted by `offset` and,
/// for diagonal covariances, scaled by `scale`, x' = s (x − o) and
/// c' = s (c − o):
///
///   s(x, c) = alpha_c + beta_c p(x')·q(c) + gamma_c ‖x'‖²
///
///                      p, q              alpha              beta    gamma
///   nearest, L2        x', c'            −‖c'‖²             2       0
///   nearest, product   x', c' (o = 0)    0                  1       0
///   log p(x, c), spherical
///                      x', c'            L_c − h_c ‖c'‖²    2 h_c   −h_c
///   tied diagonal      x', c'            L_c − ‖c'‖²        2       −1
///   diagonal           [x'², x'],        L_c − Σ g_j c'_j²  1       0
///                      [−g, 2 g c']
///
/// with L_c = log_scales, h_c = 1/(2σ²_c), h_cj = 1/(2σ²_cj). Diagonal
/// covariances scale by s_j = √max_c h_cj, so that g_j = h_cj / s_j² ≤ 1 (and
/// = 1 where they are tied). p and q of an untied one have 2d terms, x'_j²
/// beside x'_j so that what the two cancel does not add up.
///
/// The offset (the median of the centroids) takes a common shift of the
/// data out of the cancellation between the terms.
struct PackedModel {
    size_t k = 0;
    size_t d = 0;
    size_t terms = 0;  ///< of p·q: d, or 2d
    size_t width = 0;  ///< centroids per panel, two vectors of the target
    size_t panels = 0; ///< ⌈k / width⌉; padding centroids score −inf
    /// panel p, term t, column c: q(p·width + c)[t]; (panels, terms, width)
    hwy::AlignedFreeUniquePtr<float[]> centroids;
    hwy::AlignedFreeUniquePtr<float[]> alpha, beta, gamma; ///< (panels·width)
    std::vector<float> offset;                             ///< (d)
    std::vector<float> scale;                              ///< (d)
    double max_norm2 = 0;     ///< max ‖c'‖², or Σ g_j c'_j²
    double max_precision = 0; ///< max h, 1 if scaled, 0 without variances
    /// A score is off by less than (‖x'‖² + max_norm2)·max_precision times
    /// this, from rounding.
    double rounding = 0;

    const float* panel(size_t p) const {
        return centroids.get() + p * terms * width;
    }
    bool has_squares() const {
        return terms > d;
    }
};

enum class ScoreKind { nearest, log_density };

PackedModel pack_model(const Model& model, ScoreKind kind);

} // namespace faiss_flash
