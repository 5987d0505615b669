#pragma once

// One pass of half-precision products that finds the two best centroids or
// components of each row, says where that is proved, and whether the second
// one holds more than a given share of the row. README.md derives it.

#include <cuda.h>
#include <cuda_runtime.h>

#include <faiss_flash/cuda/assign.cuh>
#include <faiss_flash/cuda/mixture/prepare.cuh>
#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/** Costs as keys have them: q = scale·(offset − v), v being the score of
 * ListInput, an upper bound of log p(x, k) or −‖x − c‖². What matters lies
 * in [2⁻¹⁵, 1), where all floats have the same five top bits; what is worse
 * saturates at 1.
 */
struct CostScale {
    float scale; ///< a power of two; 0: there is no such range
    /// q of the same v may differ by this much / scale
    float rounding;
};

constexpr uint32_t cost_top_bits = 0x38000000; ///< of floats in [2⁻¹⁵, 2)

__device__ inline float key_cost(uint32_t key) {
    return __uint_as_float(key >> key_column_bits | cost_top_bits);
}

/// ‖x'‖² as scores have it: norms are stored rounded up (see prepare.cu).
__device__ inline float squared_norm(float norm, int d) {
    const float plain = norm / (1 + (d + 64) * 0x1p-24f);
    return plain * plain;
}

/// Rows and columns of one pass; all on the device.
struct TopTwoInput {
    PreparedRows rows;
    int k = 0, k_padded = 0;
    const __half* means = nullptr;     ///< (k_padded, d_padded)
    const float2* columns = nullptr;   ///< scale·(offset − a), scale·h
    const float* slack = nullptr;      ///< see ListTerms
    const CostScale* scale = nullptr;
    uint32_t key_factor = 1u << key_column_bits; ///< see make_key
    int lists = 2;      ///< wanted, 1 or 2
    /// a second list where its share of the row exceeds exp(log_tau);
    /// −inf: everywhere
    float log_tau = 0;
};

/// Numbers of rows, and one likely column of each; any order.
struct RowNumbers {
    uint32_t* rows = nullptr;
    uint32_t* columns = nullptr;
    uint32_t* count = nullptr;
};

struct TopTwoOutput {
    idx_t* to = nullptr; ///< (n, lists), what is proved; −1: no second list
    /// nothing is known of their shares; `columns` is the best one found
    RowNumbers unshared;
    /// as many lists as wanted, but which: the best of those whose score may
    /// reach that of the column
    RowNumbers unordered;
};

/// What the four threads that share a row know of it, or one of them; costs
/// as in CostScale. All other columns cost at least `third`, which may be
/// less than `second`.
struct TopTwo {
    float best, second, third;
    int column, second_column;

    __device__ void merge(const TopTwo& other) {
        const bool swap = other.best < best;
        const float lost = swap ? best : other.best;
        const int lost_column = swap ? column : other.column;
        const bool theirs = other.second < second;
        const float next = theirs ? other.second : second;
        const int next_column =
                theirs ? other.second_column : second_column;
        best = swap ? other.best : best;
        column = swap ? other.column : column;
        third = fminf(fminf(third, other.third), fmaxf(lost, next));
        second_column = lost < next ? lost_column : next_column;
        second = fminf(lost, next);
    }

    __device__ TopTwo of_lane(int step) const {
        return {__shfl_xor_sync(0xffffffff, best, step),
                __shfl_xor_sync(0xffffffff, second, step),
                __shfl_xor_sync(0xffffffff, third, step),
                __shfl_xor_sync(0xffffffff, column, step),
                __shfl_xor_sync(0xffffffff, second_column, step)};
    }
};

/// Columns for TopTwoInput from those of a listing.
/// @param spread  scores that far (in nats) below a row's best one are told
///                apart; 0: as far again as the best itself
cudaError_t launch_cost_columns(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        float spread,
        float2* columns,
        CostScale* scale,
        cudaStream_t stream);

/// Needs compute capability 9.0 and d_padded ≤ assign_sm90_max_d.
cudaError_t launch_top_two_sm90(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const TopTwoInput& in,
        const TopTwoOutput& out,
        int multiprocessors,
        cudaStream_t stream);

/// The same for any number of dimensions.
cudaError_t launch_top_two_sm90_deep(
        const CUtensorMap& rows_map,
        const CUtensorMap& means_map,
        const TopTwoInput& in,
        const TopTwoOutput& out,
        int multiprocessors,
        cudaStream_t stream);

} // namespace faiss_flash
