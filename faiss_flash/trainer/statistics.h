#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_flash {

/// What one pass over the data leaves behind: everything the model update
/// needs, O(k·d) numbers whatever the number of vectors. Statistics of parts
/// of the data add up to the statistics of the whole.
///
/// r_ik is 1 for the nearest centroid and 0 elsewhere in a k-means pass, the
/// responsibility in an EM pass; w_i is the weight of vector i (1 if none).
struct Statistics {
    std::vector<double> sums;   ///< Σ_i r_ik w_i x_i, (k, d)
    std::vector<double> counts; ///< Σ_i r_ik w_i, (k)
    /// Σ_i r_ik w_i ‖x_i − μ_k‖², (k); of an EM pass with a diagonal model
    /// Σ_i r_ik w_i (x_ij − μ_kj)² per dimension, (k, d). Around the means the
    /// pass was run with, so that large norms have nothing to cancel.
    std::vector<double> energy;
    std::vector<int64_t> members; ///< vectors whose best component is k, (k)
    int64_t n = 0;                ///< vectors seen
    double total_weight = 0;      ///< Σ_i w_i
    /// Σ_i of the distance (or product) to the nearest centroid, unweighted
    /// as in FAISS; k-means passes only
    double objective = 0;
    /// Σ_i w_i log p(x_i); EM passes only
    double log_likelihood = 0;
    int64_t entries = 0; ///< (vector, component) pairs that were kept
    /// vectors whose label a first pass in low precision left open; engines
    /// that have such a pass
    int64_t rechecked = 0;
    /// largest bound, over the vectors, on the responsibility left out
    double dropped_mass = 0;

    /// Everything 0, for k components.
    /// @param energies  per component: 1 or d
    void reset(size_t k, size_t d, size_t energies = 1);
    /// The same, but for what is in the arrays: whoever calls this writes all
    /// of them.
    void resize(size_t k, size_t d, size_t energies = 1);
    void add(const Statistics& other);
};

} // namespace faiss_flash
