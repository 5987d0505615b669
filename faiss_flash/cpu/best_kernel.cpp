// Fused score and argmax: the running best of every row, one slot per vector
// lane, is all that leaves the micro-kernel.

#include <faiss_flash/cpu/targets.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_flash/cpu/best_kernel.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include <faiss_flash/cpu/score_kernel-inl.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_flash {
namespace HWY_NAMESPACE {

size_t panel_width_target() {
    return 2 * lanes();
}

const char* cpu_target_name_target() {
    return hwy::TargetName(HWY_TARGET);
}

void best_centroids_target(
        const PackedModel& model,
        size_t rows,
        const float* x,
        uint32_t* labels,
        ScoreScratch& scratch) {
    const Floats df;
    const hn::RebindToSigned<Floats> di;
    const size_t L = lanes();
    shift_rows(model, rows, x, scratch);
    // per row: best score of each lane, then the column it came from; a
    // column number is kept as the bits of a float
    float* HWY_RESTRICT state = scratch.state.get();
    for (size_t i = 0; i < row_block; i++) {
        hn::Store(hn::Set(df, -HUGE_VALF), df, state + i * 2 * L);
        hn::Store(hn::Zero(df), df, state + i * 2 * L + L);
    }
    const auto lane = hn::Iota(di, 0);

    score_block(
            model,
            0,
            model.panels,
            rows,
            scratch,
            [&](size_t row, size_t p, VF s0, VF s1) HWY_ATTR {
                float* slot = state + row * 2 * L;
                VF best = hn::Load(df, slot);
                VF column = hn::Load(df, slot + L);
                const auto first = hn::Add(lane, hn::Set(di, p * 2 * L));
                const auto second = hn::Add(first, hn::Set(di, L));
                // strictly greater: the lowest number wins a tie in a lane
                const auto better0 = hn::Gt(s0, best);
                best = hn::IfThenElse(better0, s0, best);
                column =
                        hn::IfThenElse(better0, hn::BitCast(df, first), column);
                const auto better1 = hn::Gt(s1, best);
                best = hn::IfThenElse(better1, s1, best);
                column = hn::IfThenElse(
                        better1, hn::BitCast(df, second), column);
                hn::Store(best, df, slot);
                hn::Store(column, df, slot + L);
            });

    for (size_t i = 0; i < rows; i++) {
        const float* score = state + i * 2 * L;
        const float* column = score + L;
        float best = -HUGE_VALF;
        uint32_t label = 0;
        for (size_t l = 0; l < L; l++) {
            uint32_t candidate;
            memcpy(&candidate, column + l, sizeof(candidate));
            if (score[l] > best || (score[l] == best && candidate < label)) {
                best = score[l];
                label = candidate;
            }
        }
        labels[i] = label;
    }
}

} // namespace HWY_NAMESPACE
} // namespace faiss_flash
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_flash {

HWY_EXPORT(panel_width_target);
HWY_EXPORT(cpu_target_name_target);
HWY_EXPORT(best_centroids_target);

size_t panel_width() {
    return HWY_DYNAMIC_DISPATCH(panel_width_target)();
}

const char* cpu_target_name() {
    return HWY_DYNAMIC_DISPATCH(cpu_target_name_target)();
}

void best_centroids(
        const PackedModel& model,
        size_t rows,
        const float* x,
        uint32_t* labels,
        ScoreScratch& scratch) {
    HWY_DYNAMIC_DISPATCH(best_centroids_target)
    (model, rows, x, labels, scratch);
}

} // namespace faiss_flash
#endif
