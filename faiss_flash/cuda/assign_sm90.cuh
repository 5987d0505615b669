#pragma once

// The epilogue of the Hopper pipelines that assigns rows to centroids.

#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {
namespace sm90 {

struct AssignInput {
    PreparedRows rows;
    PreparedCentroids centroids;
};

/// Scores of 64 rows into this thread's two rows' running best.
/// @param alpha_pair  g → alpha of columns 8g and 8g + 1 past the thread's
///                    first
template <class AlphaPair>
__device__ __forceinline__ void reduce_scores(
        const float (&acc)[64],
        AlphaPair&& alpha_pair,
        float beta,
        uint32_t factor,
        int tile,
        Top2& low,
        Top2& high) {
    const uint32_t before_low = low.best, before_high = high.best;
#pragma unroll
    for (int g = 0; g < 16; g++) {
        const float2 a = alpha_pair(g);
        low.add(make_key(fmaf(beta, acc[4 * g], a.x), 2 * g, factor),
                make_key(fmaf(beta, acc[4 * g + 1], a.y), 2 * g + 1, factor));
        high.add(
                make_key(fmaf(beta, acc[4 * g + 2], a.x), 2 * g, factor),
                make_key(fmaf(beta, acc[4 * g + 3], a.y), 2 * g + 1, factor));
    }
    low.tile = low.best != before_low ? tile : low.tile;
    high.tile = high.best != before_high ? tile : high.tile;
}

__device__ inline void write_row_of(
        const Top2& top,
        int64_t row,
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out) {
    const RowBest found = merge_lanes(top);
    if (threadIdx.x % 4 == 0 && row < rows.n) {
        write_row(found, row, rows, centroids, out);
    }
}

/// The two best scores of a thread's two rows of 64.
struct BestTwo {
    using Input = AssignInput;
    using Output = AssignOutput;
    using Columns = float2; ///< alpha
    static constexpr bool columns_travel = true;

    Top2 low, high;
    float beta;
    int64_t first; ///< of the 64 rows

    __host__ __device__ static PassShape shape(const AssignInput& in) {
        return {in.rows.n,
                in.rows.d_padded,
                in.centroids.k_padded,
                in.centroids.alpha};
    }
    __device__ void start(const AssignInput& in, int64_t first_row) {
        beta = in.centroids.terms->beta;
        first = first_row + row_of_thread();
    }
    template <class Load>
    __device__ __forceinline__ void add(
            const AssignInput& in,
            const AssignOutput&,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        reduce_scores(
                acc, load, beta, in.centroids.key_factor, tile, low, high);
    }
    __device__ void finish(const AssignInput& in, const AssignOutput& out) {
        write_row_of(low, first, in.rows, in.centroids, out);
        write_row_of(high, first + 8, in.rows, in.centroids, out);
    }
};

} // namespace sm90
} // namespace faiss_flash
