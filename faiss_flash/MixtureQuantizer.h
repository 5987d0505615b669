#pragma once

#include <string>
#include <vector>

#include <faiss/IndexFlat.h>

#include <faiss_flash/GMMClustering.h>

namespace faiss_flash {

/** A flat coarse quantizer that also knows its clusters as a Gaussian
 * mixture: the means are the vectors of the IndexFlat, beside them each
 * one's variance (or variances, one per dimension) and mixing weight.
 *
 * Usable wherever FAISS takes a quantizer: search, assign and everything
 * else are IndexFlat's, and stock write_index stores it as a plain IndexFlat
 * (means only). With `quantizer_trains_alone = 1` a stock faiss::IndexIVF of
 * any kind trains it as a mixture.
 */
struct MixtureQuantizer : faiss::IndexFlat {
    size_t nlist = 0;               ///< components that train() fits
    faiss::ClusteringParameters cp; ///< for train()
    GMMParameters gmm;              ///< for train()
    std::string engine = "auto";
    /// (ntotal), (ntotal, d) of diagonal covariances, or empty
    std::vector<float> variances;
    std::vector<float> mixing_weights; ///< (ntotal), or empty

    MixtureQuantizer() = default;
    MixtureQuantizer(
            size_t d,
            size_t nlist,
            faiss::MetricType metric = faiss::METRIC_L2);

    /// Fit nlist components and hold them.
    void train(idx_t n, const float* x) override;

    /// Plain vectors: what was known about the mixture no longer holds and
    /// is dropped, until set_mixture() is called.
    void add(idx_t n, const float* x) override;
    void reset() override;
    size_t remove_ids(const faiss::IDSelector& sel) override;

    /// Whether the ntotal vectors have variances and mixing weights.
    bool is_mixture() const;

    /// Give the ntotal vectors their variances (> 0; one each, or one each
    /// per dimension) and mixing weights (≥ 0, summing to 1 within 1e-3).
    void set_mixture(
            std::vector<float> variances,
            std::vector<float> mixing_weights);

    Model model() const;

    /// The m largest responsibilities of each vector, largest first; see
    /// Engine::responsibilities. Throws if there is no mixture.
    void responsibilities(
            idx_t n,
            const float* x,
            idx_t m,
            idx_t* labels,
            float* responsibilities,
            float* log_likelihood = nullptr) const;
};

} // namespace faiss_flash
