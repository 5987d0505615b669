// The micro-kernel every score goes through, and the walk over panels and
// rows around it. Per-target include guard, as Highway asks for.

#if defined(FAISS_FLASH_SCORE_KERNEL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef FAISS_FLASH_SCORE_KERNEL_INL_H
#undef FAISS_FLASH_SCORE_KERNEL_INL_H
#else
#define FAISS_FLASH_SCORE_KERNEL_INL_H
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include <hwy/highway.h>

#include <faiss_flash/cpu/kernels.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_flash {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using VF = hn::Vec<Floats>;

/// Rows per micro-kernel: with two column vectors, 2·tile_rows accumulators,
/// 2 panel loads and 1 broadcast must fit the registers. 32 registers
/// (AVX-512, NEON): 12, 16 registers (AVX2): 6.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr size_t tile_rows = 12;
#elif HWY_TARGET == HWY_AVX2
constexpr size_t tile_rows = 6;
#else
constexpr size_t tile_rows = 2;
#endif
/// Columns of scores that the tile kernels look at together.
constexpr size_t tile_columns = 256;

static_assert(row_block % tile_rows == 0, "row_block holds whole tiles");

HWY_INLINE size_t lanes() {
    return hn::Lanes(Floats());
}

/// p(x') of rows, shifted and scaled, into scratch.rows, (row_block, terms),
/// with zeros below the last row, and their norms ‖x'‖².
HWY_INLINE void shift_rows(
        const PackedModel& model,
        size_t rows,
        const float* HWY_RESTRICT x,
        ScoreScratch& scratch) {
    const size_t d = model.d, terms = model.terms;
    if (scratch.terms < terms) {
        scratch.norms2.resize(row_block);
        scratch.state = hwy::AllocateAligned<float>(row_block * tile_columns);
        scratch.rows = hwy::AllocateAligned<float>(row_block * terms);
        if (!scratch.rows || !scratch.state) {
            throw std::bad_alloc();
        }
        scratch.terms = terms;
    }
    float* HWY_RESTRICT to = scratch.rows.get();
    const float* HWY_RESTRICT offset = model.offset.data();
    const float* HWY_RESTRICT scale = model.scale.data();
    for (size_t i = 0; i < rows; i++) {
        float norm2 = 0;
        for (size_t j = 0; j < d; j++) {
            const float value = (x[i * d + j] - offset[j]) * scale[j];
            if (model.has_squares()) {
                to[i * terms + 2 * j] = value * value;
                to[i * terms + 2 * j + 1] = value;
            } else {
                to[i * terms + j] = value;
            }
            norm2 += value * value;
        }
        // finite, also where it overflows: a score may take it times zero
        scratch.norms2[i] = std::min(norm2, std::numeric_limits<float>::max());
    }
    memset(to + rows * terms, 0, (row_block - rows) * terms * sizeof(float));
    for (size_t i = rows; i < row_block; i++) {
        scratch.norms2[i] = 0;
    }
}

/// Scores of tile_rows rows against one panel: products p·q in registers
/// (one broadcast feeds two fused multiply-adds), then
/// epilogue(row, scores of the first vector, of the second).
template <class Epilogue>
HWY_INLINE void score_tile(
        const PackedModel& model,
        size_t p,
        const float* HWY_RESTRICT rows,
        const float* HWY_RESTRICT norms2,
        Epilogue&& epilogue) {
    const Floats df;
    const size_t terms = model.terms;
    const size_t L = lanes();
    const float* HWY_RESTRICT panel = model.panel(p);

    VF acc0[tile_rows], acc1[tile_rows];
#pragma GCC unroll 12
    for (size_t r = 0; r < tile_rows; r++) {
        acc0[r] = hn::Zero(df);
        acc1[r] = hn::Zero(df);
    }
    for (size_t j = 0; j < terms; j++) {
        const VF c0 = hn::Load(df, panel + j * 2 * L);
        const VF c1 = hn::Load(df, panel + j * 2 * L + L);
#pragma GCC unroll 12
        for (size_t r = 0; r < tile_rows; r++) {
            const VF xr = hn::Set(df, rows[r * terms + j]);
            acc0[r] = hn::MulAdd(xr, c0, acc0[r]);
            acc1[r] = hn::MulAdd(xr, c1, acc1[r]);
        }
    }

    const size_t column = p * 2 * L;
    const VF alpha0 = hn::Load(df, model.alpha.get() + column);
    const VF alpha1 = hn::Load(df, model.alpha.get() + column + L);
    const VF beta0 = hn::Load(df, model.beta.get() + column);
    const VF beta1 = hn::Load(df, model.beta.get() + column + L);
    const VF gamma0 = hn::Load(df, model.gamma.get() + column);
    const VF gamma1 = hn::Load(df, model.gamma.get() + column + L);
#pragma GCC unroll 12
    for (size_t r = 0; r < tile_rows; r++) {
        const VF norm2 = hn::Set(df, norms2[r]);
        epilogue(
                r,
                hn::MulAdd(beta0, acc0[r], hn::MulAdd(gamma0, norm2, alpha0)),
                hn::MulAdd(beta1, acc1[r], hn::MulAdd(gamma1, norm2, alpha1)));
    }
}

/// All tiles of a block against panels [p0, p1): a panel stays in L1 while
/// the block's rows (L2) pass by it. epilogue(row, panel, scores, scores).
template <class Epilogue>
HWY_INLINE void score_block(
        const PackedModel& model,
        size_t p0,
        size_t p1,
        size_t rows,
        const ScoreScratch& scratch,
        Epilogue&& epilogue) {
    for (size_t p = p0; p < p1; p++) {
        for (size_t i = 0; i < rows; i += tile_rows) {
            score_tile(
                    model,
                    p,
                    scratch.rows.get() + i * model.terms,
                    scratch.norms2.data() + i,
                    [&](size_t r, VF s0, VF s1)
                            HWY_ATTR { epilogue(i + r, p, s0, s1); });
        }
    }
}

} // namespace HWY_NAMESPACE
} // namespace faiss_flash
HWY_AFTER_NAMESPACE();

#endif
