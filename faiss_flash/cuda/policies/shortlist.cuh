#pragma once

// One pass of half-precision products that keeps, of each row, the few best
// centroids of every group of them: candidates for the rules that look at
// distances, with their distances up to a known error. README.md says more.

#include <cuda.h>
#include <cuda_runtime.h>

#include <faiss_flash/cuda/assign.cuh>

namespace faiss_flash {

/// Groups of a row's centroids at most: a group is what one of the four
/// threads that share a row sees of some consecutive tiles.
constexpr int shortlist_groups = 32;
constexpr int shortlist_kept = 4; ///< centroids of a group
/// Column bits of a key: up to 8 tiles of a thread's 32 columns each.
constexpr int shortlist_column_bits = 8;
constexpr int shortlist_most_k = shortlist_groups / 4 * 8 * assign_columns;
/// Keys from here on are no centroid's: +inf, as padding has it.
constexpr uint32_t shortlist_none = 0x80000000;

/** How keys order a row's centroids, and what they say of distances.
 *
 *   q(x, c) = ½ + room + scale·(‖c'‖² − 2 x'·c' + X²) in [½, 1)
 *
 * for rows up to X; a key is its 23 bits below the leading one and the bit
 * above them, then shortlist_column_bits: integers order as q does, and
 * differences of keys are differences of distances.
 */
struct ShortlistTerms {
    float beta;      ///< −2·scale
    float scale;     ///< a power of two
    float per_scale; ///< 1 / scale
    float row_norm;  ///< X
    float norm;      ///< largest of all centroids but those too far out
    /// score_error() of a row with the worst of these, and what norms add,
    /// by norm and error of the row, and by (norm of the row + norm)²
    float by_norm, by_error, by_square;
    uint32_t ceiling; ///< keys above may be behind one that is too far out

    /// Error of q for a row.
    __device__ float error(float row_norm, float row_error) const {
        const float sum = row_norm + norm;
        return scale *
                (by_norm * row_norm + by_error * row_error +
                 by_square * sum * sum) +
                0x1p-23f;
    }
    /// The dist of a prepared row (in units of its halves) less ‖x'‖².
    __device__ float relative_dist(uint32_t key) const {
        const float q = (key >> shortlist_column_bits) * 0x1p-24f;
        return (q - room) * per_scale - row_norm * row_norm;
    }

    /// What errors of q may take: rows with more are not proved.
    static constexpr float room = 0x1p-6f;
};

/// How the columns of k_padded are cut into groups.
struct ShortlistGroups {
    int log_tiles = 0; ///< tiles of a group, as a power of two
    int slots = 0;     ///< groups of a thread

    static ShortlistGroups of(int tiles) {
        ShortlistGroups groups;
        while ((tiles - 1) >> groups.log_tiles >= shortlist_groups / 4) {
            groups.log_tiles++;
        }
        groups.slots = ((tiles - 1) >> groups.log_tiles) + 1;
        return groups;
    }
    __host__ __device__ int count() const {
        return 4 * slots;
    }
    /// Of a key of group `group`: slot · 4 + thread of the row.
    __device__ int column(uint32_t group, uint32_t key) const {
        const uint32_t within = key & ((1 << shortlist_column_bits) - 1);
        const uint32_t tile = (group / 4 << log_tiles) + within / 32;
        return tile * assign_columns + within % 32 / 2 * 8 + group % 4 * 2 +
                within % 2;
    }
};

/// Rows and columns of one pass; all on the device.
struct ShortlistInput {
    PreparedRows rows; ///< for costs, their norms are what `costs` subtract
    int k_padded = 0;
    const __half* means = nullptr; ///< (k_padded, d_padded)
    ShortlistGroups groups;
    // distances:
    const float* alpha = nullptr; ///< (k_padded), see launch_shortlist_columns
    const ShortlistTerms* terms = nullptr;
    // or costs: q = a + h·(norm − 2 x'·c') between ½ and 1
    const float2* costs = nullptr; ///< a, h; (k_padded)
    uint32_t key_factor = 1u << shortlist_column_bits; ///< see make_key
};

struct ShortlistOutput {
    /// (n, groups.count(), shortlist_kept) in no order
    uint32_t* keys = nullptr;
    /// (n) nothing that was left out has a smaller key
    uint32_t* bounds = nullptr;
};

/// @param alpha  (means.k_padded), +inf for what is not looked at
cudaError_t launch_shortlist_columns(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        float* alpha,
        ShortlistTerms* terms,
        cudaStream_t stream);

/// Needs compute capability 9.0.
void launch_shortlist(
        const ShortlistInput& in,
        const ShortlistOutput& out,
        int multiprocessors,
        cudaStream_t stream);

/// Its kernels, for d_padded ≤ assign_sm90_max_d and for any.
cudaError_t launch_shortlist_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ShortlistInput& in,
        const ShortlistOutput& out,
        int multiprocessors,
        cudaStream_t stream);
cudaError_t launch_shortlist_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const ShortlistInput& in,
        const ShortlistOutput& out,
        int multiprocessors,
        cudaStream_t stream);

} // namespace faiss_flash
