#include <algorithm>

#include <faiss_flash/cuda/mixture_pass.cuh>
#include <faiss_flash/cuda/mixture_plan.h>

namespace faiss_flash {

namespace {

MixturePlan smallest_plan(int64_t n, int k, int d) {
    MixturePlan plan;
    plan.k = k;
    plan.d = d;
    // a block's rows should stay in the second-level cache while its entries
    // are summed, and runs of a component should not be too short; a power
    // of two that divides the blocks of chunks (update_block_rows)
    plan.block_rows = 1 << 14;
    while (plan.block_rows < 8 * (int64_t)k && plan.block_rows < 1 << 17) {
        plan.block_rows *= 2;
    }
    plan.piece_rows = std::clamp<int64_t>(
            (int64_t(1) << 22) / k, 64, dense_piece_rows);
    plan.rows = std::min(n, plan.block_rows);
    plan.entries =
            std::min(plan.block_entries(), n * std::min(k, list_capacity));
    plan.pieces = 1;
    return plan;
}

} // namespace

size_t MixturePlan::scratch_bytes() const {
    const SegmentPlan sums = {entries, rows / block_rows + 1, k, d};
    return std::max(
            sums.scratch_bytes(),
            distance_slices(k, d) * entries * sizeof(float));
}

size_t MixturePlan::bytes() const {
    // places, log densities, dense rows, least scores, mass left out
    const size_t row_bytes = sizeof(uint64_t) + sizeof(double) +
            sizeof(uint32_t) + 2 * sizeof(float);
    return RowLists::bytes(rows) + rows * row_bytes +
            row_places_temp_bytes(rows) +
            entries * (sizeof(WeightedRow) + 2 * sizeof(uint32_t)) +
            scratch_bytes() +
            dense_rows() * (k_padded() + k + 2) * sizeof(float) +
            (dense_rows() + k_padded()) * 3 * d_padded() * 2 +
            k_padded() * 2 * sizeof(float) +
            pieces * ((size_t)k * d + 2 * k) * sizeof(double);
}

MixturePlan plan_mixture(int64_t n, int k, int d, size_t budget) {
    const MixturePlan least = smallest_plan(n, k, d);
    MixturePlan plan = least;
    // sums of more pieces at once would be larger than 256 MiB
    const size_t piece_bytes = (size_t)k * d * sizeof(double);
    plan.pieces = std::clamp<size_t>(
            (size_t(1) << 28) / piece_bytes, 1, 32);
    plan.pieces = std::min<int64_t>(
            plan.pieces, (n + plan.piece_rows - 1) / plan.piece_rows);
    // a block less than 2²⁰ rows: with a power of two of components one key
    // bit less
    plan.rows = std::min<int64_t>(n, (1 << 20) - plan.block_rows);
    for (;;) {
        plan.entries = std::min(
                std::max(least.entries, 8 * plan.rows),
                n * std::min(k, list_capacity));
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

size_t least_mixture_bytes(int64_t n, int k, int d) {
    return smallest_plan(n, k, d).bytes();
}

} // namespace faiss_flash
