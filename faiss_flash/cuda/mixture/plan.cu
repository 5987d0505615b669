#include <algorithm>

#include <faiss_flash/cuda/mixture/dense_pass.cuh>
#include <faiss_flash/cuda/mixture/diagonal.cuh>
#include <faiss_flash/cuda/mixture/plan.h>
#include <faiss_flash/cuda/mixture/tiles.cuh>

namespace faiss_flash {

namespace {

MixturePlan smallest_plan(int64_t n, int k, int d, bool diagonal) {
    MixturePlan plan;
    plan.k = k;
    plan.d = d;
    plan.diagonal = diagonal;
    // A tile's rows should have the same best component, or few; a power of
    // two that divides the blocks of chunks (update_block_rows). For very
    // large k nothing helps, and masks take much memory.
    plan.block_rows = 1 << 14;
    while (plan.block_rows < 128 * (int64_t)k && plan.block_rows < 1 << 17) {
        plan.block_rows *= 2;
    }
    if (k > 1 << 14) {
        plan.block_rows = 1 << 15;
    }
    // fewer than products are worth it for; and their shares of all
    // components should stay below 16 MiB
    plan.wide_rows = std::clamp<int64_t>(
            (int64_t(1) << 21) / k, 16, dense_products_min_rows - 1);
    plan.piece_rows = std::clamp<int64_t>(
            (int64_t(1) << 22) / k, 64, dense_piece_rows);
    if (plan.piece_rows > 128) {
        plan.piece_rows -= plan.piece_rows % 128; // a step of products
    }
    plan.rows = std::min(n, plan.block_rows);
    plan.pieces = 1;
    return plan;
}

} // namespace

int64_t MixturePlan::tiles() const {
    return (rows + tile_rows - 1) / tile_rows;
}

int64_t MixturePlan::items() const {
    return tiles() * std::min(tile_pairs, tile_rows * k);
}

int64_t MixturePlan::vectors() const {
    // 0.6 vectors per row are usual
    const int64_t most = (int64_t(1) << 30) / (4 * vector_stride());
    return std::clamp<int64_t>(rows, 1, most);
}

size_t MixturePlan::bytes() const {
    // masks, near ones, limits, log densities, wide rows
    const size_t row_bytes = mask_words() * sizeof(uint32_t) +
            sizeof(RowLimit) + sizeof(double) + 2 * sizeof(uint32_t) + 1;
    return rows * row_bytes + order_scratch_bytes({rows, block_rows}, k) +
            items() * sizeof(TileItem) +
            vectors() * vector_stride() * sizeof(float) +
            2 * mask_words() * tiles() * sizeof(uint32_t) +
            blocks() * wide_rows * k * sizeof(float2) +
            DensePass::bytes(*this) +
            (diagonal ? DiagonalMixture::bytes(rows, k, d) : 0);
}

MixturePlan plan_mixture(
        int64_t n,
        int k,
        int d,
        size_t budget,
        bool diagonal) {
    const MixturePlan least = smallest_plan(n, k, d, diagonal);
    MixturePlan plan = least;
    // sums of more pieces at once would be larger than 256 MiB
    const size_t piece_bytes =
            (size_t)k * d * (diagonal ? 2 : 1) * sizeof(double);
    plan.pieces = std::clamp<size_t>(
            (size_t(1) << 28) / piece_bytes, 1, 32);
    plan.pieces = std::min<int64_t>(
            plan.pieces, (n + plan.piece_rows - 1) / plan.piece_rows);
    // floats of these rows are counted in 32 bits
    plan.rows = std::min<int64_t>(n, 1 << 20);
    while (plan.rows > plan.block_rows && plan.rows * d >> 32 != 0) {
        plan.rows = plan.rows / 2 / plan.block_rows * plan.block_rows;
    }
    for (;;) {
        if (plan.bytes() <= budget ||
            (plan.rows == least.rows && plan.pieces == least.pieces)) {
            break;
        }
        // halve what is not at its least yet
        plan.rows = std::max(
                least.rows,
                plan.rows / 2 / plan.block_rows * plan.block_rows);
        plan.pieces = std::max(1, plan.pieces / 2);
    }
    return plan;
}

size_t least_mixture_bytes(int64_t n, int k, int d, bool diagonal) {
    return smallest_plan(n, k, d, diagonal).bytes();
}

} // namespace faiss_flash
