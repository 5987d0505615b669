#pragma once

#include <cstddef>
#include <string>

#include <faiss_flash/faiss_compat.h>
#include <faiss_flash/trainer/model.h>
#include <faiss_flash/trainer/vector_type.h>

namespace faiss_flash {

class Engine;

/// Rules that say which posting lists a vector goes to.
enum class AssignmentRule {
    nearest,        ///< the nearest centroid's, as FAISS
    top_m,          ///< the max_lists nearest
    responsibility, ///< up to max_lists with responsibility above tau
    closure,        ///< SPANN: nearly as near as the nearest, and diverse
    air,            ///< RAIRS: residuals that point in different directions
    soar            ///< ScaNN: residuals that are nearly orthogonal
};

/** Which posting lists a vector is stored in; one struct for every index.
 *
 * With r_j = x − c_j, c_1 the nearest centroid and candidates j the
 * `candidates` nearest ones:
 *
 * - nearest: {1}
 * - top_m: the max_lists nearest
 * - responsibility: the largest responsibility's list, then the next largest
 *   while they exceed tau, at most max_lists (Flash-GMM; tau = 1/k). Over
 *   k-means centroids the mixture has one variance (see FlashClustering).
 * - closure: j with ‖r_j‖ ≤ (1 + epsilon)·‖r_1‖, nearest first, leaving out
 *   a j whose centroid is nearer to one already chosen than to x
 *   (SPANN); at most max_lists
 * - air: argmin_{j>1} ‖r_j‖² + lambda·r_1ᵀr_j; unless strict, no second
 *   list where (1 + lambda)·‖r_1‖² is no larger, that is where j = 1 would
 *   win (RAIRS)
 * - soar: argmin_{j>1} ‖r_j‖² + lambda·(r_1ᵀr_j)²/‖r_1‖² (SOAR)
 *
 * Distances are squared L2 whatever the index's metric.
 */
struct AssignmentPolicy {
    AssignmentRule rule = AssignmentRule::air;
    /// at most this many lists per vector; air and soar use two
    int max_lists = 2;
    /// responsibility threshold in (0, 1); 0 means 1/k
    double tau = 0;
    /// closure's slack on the distance (not squared), ≥ 0
    double epsilon = 0.1;
    /// weight of the direction term of air and soar, ≥ 0
    double lambda = 1;
    /// air: always a second list
    bool strict = false;
    /// nearest centroids looked at by closure, air and soar
    int candidates = 16;

    static AssignmentPolicy nearest();
    static AssignmentPolicy top_m(int m);
    static AssignmentPolicy responsibility(double tau = 0, int max_lists = 2);
    static AssignmentPolicy closure(double epsilon, int max_lists = 8);
    static AssignmentPolicy air(double lambda = 1, bool strict = false);
    static AssignmentPolicy soar(double lambda = 1);

    /// Throws a FaissException naming the field, its value and the bound.
    void check(size_t nlist) const;

    /// Lists a vector can get at most: 1 under `nearest`.
    int list_limit() const;
    /// Responsibility above which a list is taken, of k.
    double share_limit(size_t k) const;
    /// Whether the rule compares residuals of `candidates` centroids: closure,
    /// air and soar.
    bool compares_residuals() const;
};

const char* to_string(AssignmentRule rule);
/// Inverse of to_string; throws on an unknown name.
AssignmentRule assignment_rule(const std::string& name);

/** Choose the lists of n vectors.
 *
 * O(n·k·d) for the candidates, in one fused pass that never stores n×k
 * distances.
 *
 * @param model  centroids; with variances and weights for `responsibility`
 * @param x      (n, d), finite
 * @param lists  (n, policy.list_limit()): lists in order of preference, each
 *               once, then −1. The first is never −1.
 */
void assign_lists(
        const AssignmentPolicy& policy,
        const Engine& engine,
        const Model& model,
        size_t n,
        const float* x,
        idx_t* lists);

/** The same for vectors and lists on the current CUDA device; the rules run
 * there, too. Candidates are found with half-precision products and compared
 * by distances in difference form, so lists are those of assign_lists() where
 * scores differ by more than the rounding of distances.
 *
 * Throws where there is no CUDA engine, and where a pointer is not memory of
 * the current device. More than 16 candidates are looked at by the host.
 *
 * @param x       device pointer, (n, d) of `type`, finite
 * @param lists   device pointer, see assign_lists()
 * @param stream  a cudaStream_t: x is read and lists are written in its
 *                order; nullptr: x is there, lists are when this returns
 */
void assign_lists_device(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const void* x,
        VectorType type,
        idx_t* lists,
        void* stream = nullptr);

} // namespace faiss_flash
