// Scores of a block of rows against a few hundred centroids at a time, kept
// in a tile that stays in L2, and the two ways of picking from it: the m
// best, and all within a range of the best.

#include <algorithm>

#include <faiss_flash/cpu/targets.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "faiss_flash/cpu/tile_kernel.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include <faiss_flash/cpu/score_kernel-inl.h>

HWY_BEFORE_NAMESPACE();
namespace faiss_flash {
namespace HWY_NAMESPACE {

/// For each tile of columns: scores into scratch.state, (row_block,
/// tile_columns), then pick(row, first column, columns, scores) per row.
/// Padding columns score −inf.
template <class Pick>
HWY_INLINE void for_each_tile(
        const PackedModel& model,
        size_t rows,
        ScoreScratch& scratch,
        Pick&& pick) {
    const Floats df;
    const size_t L = lanes();
    float* tile = scratch.state.get();
    const size_t step = tile_columns / model.width;
    for (size_t p0 = 0; p0 < model.panels; p0 += step) {
        const size_t p1 = std::min(p0 + step, model.panels);
        score_block(
                model,
                p0,
                p1,
                rows,
                scratch,
                [&](size_t row, size_t p, VF s0, VF s1) HWY_ATTR {
                    float* to =
                            tile + row * tile_columns + (p - p0) * model.width;
                    hn::Store(s0, df, to);
                    hn::Store(s1, df, to + L);
                });
        for (size_t i = 0; i < rows; i++) {
            pick(i,
                 p0 * model.width,
                 (p1 - p0) * model.width,
                 tile + i * tile_columns);
        }
    }
}

/// hit(column, score) for every score above the threshold, in order.
template <class Hit>
HWY_INLINE void for_each_above(
        const float* scores,
        size_t columns,
        float threshold,
        Hit&& hit) {
    const Floats df;
    const size_t L = lanes();
    const VF bound = hn::Set(df, threshold);
    for (size_t c = 0; c < columns; c += L) {
        if (hn::AllFalse(df, hn::Gt(hn::Load(df, scores + c), bound))) {
            continue;
        }
        for (size_t l = 0; l < L; l++) {
            if (scores[c + l] > threshold) {
                hit(c + l, scores[c + l]);
            }
        }
    }
}

/// Keep the m largest, largest first; among equals the one that came first.
HWY_INLINE void insert(
        std::vector<Scored>& top,
        size_t m,
        size_t centroid,
        float score) {
    if (top.size() < m) {
        top.push_back({});
    }
    size_t at = top.size() - 1;
    for (; at > 0 && top[at - 1].score < score; at--) {
        top[at] = top[at - 1];
    }
    top[at] = {uint32_t(centroid), score};
}

void top_centroids_target(
        const PackedModel& model,
        size_t rows,
        const float* x,
        size_t m,
        ScoreScratch& scratch) {
    shift_rows(model, rows, x, scratch);
    for (size_t i = 0; i < rows; i++) {
        scratch.picked[i].clear();
    }
    for_each_tile(
            model,
            rows,
            scratch,
            [&](size_t i, size_t first, size_t columns, const float* scores)
                    HWY_ATTR {
                        auto& top = scratch.picked[i];
                        const size_t real = std::min(columns, model.k - first);
                        // until m are held, everything is (and NaN is: a
                        // row has m centroids whatever its scores)
                        size_t c = 0;
                        for (; c < real && top.size() < m; c++) {
                            insert(top, m, first + c, scores[c]);
                        }
                        if (c == real) {
                            return;
                        }
                        const float threshold = top.back().score;
                        for_each_above(
                                scores,
                                columns,
                                threshold,
                                [&](size_t column, float score) HWY_ATTR {
                                    if (column >= c &&
                                        score > top.back().score) {
                                        insert(top, m, first + column, score);
                                    }
                                });
                    });
}

void close_centroids_target(
        const PackedModel& model,
        size_t rows,
        const float* x,
        float range,
        ScoreScratch& scratch) {
    const Floats df;
    const size_t L = lanes();
    shift_rows(model, rows, x, scratch);
    float best[row_block], reach[row_block];
    for (size_t i = 0; i < rows; i++) {
        scratch.picked[i].clear();
        best[i] = -HUGE_VALF;
        // bounds every term of a score, and their sum within a factor
        const double largest =
                (scratch.norms2[i] + model.max_norm2) * model.max_precision;
        const float error = largest * model.rounding;
        const bool overflows =
                largest > 0.25 * std::numeric_limits<float>::max();
        reach[i] = overflows ? -HUGE_VALF : range + 2 * error;
    }
    for_each_tile(
            model,
            rows,
            scratch,
            [&](size_t i, size_t first, size_t columns, const float* scores)
                    HWY_ATTR {
                        VF most = hn::Load(df, scores);
                        for (size_t c = L; c < columns; c += L) {
                            most = hn::Max(most, hn::Load(df, scores + c));
                        }
                        best[i] = std::max(
                                best[i], hn::GetLane(hn::MaxOfLanes(df, most)));
                        for_each_above(
                                scores,
                                columns,
                                best[i] - reach[i],
                                [&](size_t column, float score) HWY_ATTR {
                                    scratch.picked[i].push_back(
                                            {uint32_t(first + column), score});
                                });
                    });
    for (size_t i = 0; i < rows; i++) {
        // those from early tiles were held against a smaller best
        const float threshold = best[i] - reach[i];
        auto& close = scratch.picked[i];
        close.erase(
                std::remove_if(
                        close.begin(),
                        close.end(),
                        [&](const Scored& s) { return s.score < threshold; }),
                close.end());
    }
}

float l2_distance_target(const float* x, const float* c, size_t d) {
    const Floats df;
    const size_t L = lanes();
    VF sum0 = hn::Zero(df), sum1 = hn::Zero(df);
    size_t j = 0;
    for (; j + 2 * L <= d; j += 2 * L) {
        const VF a = hn::Sub(hn::LoadU(df, x + j), hn::LoadU(df, c + j));
        const VF b =
                hn::Sub(hn::LoadU(df, x + j + L), hn::LoadU(df, c + j + L));
        sum0 = hn::MulAdd(a, a, sum0);
        sum1 = hn::MulAdd(b, b, sum1);
    }
    float sum = hn::GetLane(hn::SumOfLanes(df, hn::Add(sum0, sum1)));
    for (; j < d; j++) {
        sum += (x[j] - c[j]) * (x[j] - c[j]);
    }
    return sum;
}

float weighted_distance_target(
        const float* x,
        const float* c,
        const float* h,
        size_t d) {
    const Floats df;
    const size_t L = lanes();
    VF sum0 = hn::Zero(df), sum1 = hn::Zero(df);
    size_t j = 0;
    for (; j + 2 * L <= d; j += 2 * L) {
        const VF a = hn::Sub(hn::LoadU(df, x + j), hn::LoadU(df, c + j));
        const VF b =
                hn::Sub(hn::LoadU(df, x + j + L), hn::LoadU(df, c + j + L));
        sum0 = hn::MulAdd(hn::Mul(a, hn::LoadU(df, h + j)), a, sum0);
        sum1 = hn::MulAdd(hn::Mul(b, hn::LoadU(df, h + j + L)), b, sum1);
    }
    float sum = hn::GetLane(hn::SumOfLanes(df, hn::Add(sum0, sum1)));
    for (; j < d; j++) {
        sum += (x[j] - c[j]) * h[j] * (x[j] - c[j]);
    }
    return sum;
}

float dot_product_target(const float* x, const float* c, size_t d) {
    const Floats df;
    const size_t L = lanes();
    VF sum0 = hn::Zero(df), sum1 = hn::Zero(df);
    size_t j = 0;
    for (; j + 2 * L <= d; j += 2 * L) {
        sum0 = hn::MulAdd(hn::LoadU(df, x + j), hn::LoadU(df, c + j), sum0);
        sum1 = hn::MulAdd(
                hn::LoadU(df, x + j + L), hn::LoadU(df, c + j + L), sum1);
    }
    float sum = hn::GetLane(hn::SumOfLanes(df, hn::Add(sum0, sum1)));
    for (; j < d; j++) {
        sum += x[j] * c[j];
    }
    return sum;
}

void add_weighted_target(
        const float* HWY_RESTRICT x,
        double weight,
        size_t d,
        double* HWY_RESTRICT sums) {
    const hn::ScalableTag<double> dd;
    const hn::Rebind<float, hn::ScalableTag<double>> dh;
    const size_t L = hn::Lanes(dd);
    const auto w = hn::Set(dd, weight);
    size_t j = 0;
    for (; j + L <= d; j += L) {
        const auto value = hn::PromoteTo(dd, hn::LoadU(dh, x + j));
        hn::StoreU(hn::MulAdd(w, value, hn::LoadU(dd, sums + j)), dd, sums + j);
    }
    for (; j < d; j++) {
        sums[j] += weight * x[j];
    }
}

void add_weighted_squares_target(
        const float* HWY_RESTRICT x,
        const float* HWY_RESTRICT c,
        double weight,
        size_t d,
        double* HWY_RESTRICT squares) {
    const hn::ScalableTag<double> dd;
    const hn::Rebind<float, hn::ScalableTag<double>> dh;
    const size_t L = hn::Lanes(dd);
    const auto w = hn::Set(dd, weight);
    size_t j = 0;
    for (; j + L <= d; j += L) {
        const auto step =
                hn::Sub(hn::PromoteTo(dd, hn::LoadU(dh, x + j)),
                        hn::PromoteTo(dd, hn::LoadU(dh, c + j)));
        hn::StoreU(
                hn::MulAdd(hn::Mul(w, step), step, hn::LoadU(dd, squares + j)),
                dd,
                squares + j);
    }
    for (; j < d; j++) {
        const double step = (double)x[j] - c[j];
        squares[j] += weight * step * step;
    }
}

} // namespace HWY_NAMESPACE
} // namespace faiss_flash
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace faiss_flash {

HWY_EXPORT(top_centroids_target);
HWY_EXPORT(close_centroids_target);
HWY_EXPORT(l2_distance_target);
HWY_EXPORT(weighted_distance_target);
HWY_EXPORT(dot_product_target);
HWY_EXPORT(add_weighted_target);
HWY_EXPORT(add_weighted_squares_target);

void top_centroids(
        const PackedModel& model,
        size_t rows,
        const float* x,
        size_t m,
        ScoreScratch& scratch) {
    HWY_DYNAMIC_DISPATCH(top_centroids_target)
    (model, rows, x, m, scratch);
}

void close_centroids(
        const PackedModel& model,
        size_t rows,
        const float* x,
        float range,
        ScoreScratch& scratch) {
    HWY_DYNAMIC_DISPATCH(close_centroids_target)
    (model, rows, x, range, scratch);
}

float l2_distance(const float* x, const float* c, size_t d) {
    return HWY_DYNAMIC_DISPATCH(l2_distance_target)(x, c, d);
}

float weighted_distance(
        const float* x,
        const float* c,
        const float* h,
        size_t d) {
    return HWY_DYNAMIC_DISPATCH(weighted_distance_target)(x, c, h, d);
}

float dot_product(const float* x, const float* c, size_t d) {
    return HWY_DYNAMIC_DISPATCH(dot_product_target)(x, c, d);
}

void add_weighted(const float* x, double weight, size_t d, double* sums) {
    HWY_DYNAMIC_DISPATCH(add_weighted_target)(x, weight, d, sums);
}

void add_weighted_squares(
        const float* x,
        const float* c,
        double weight,
        size_t d,
        double* squares) {
    HWY_DYNAMIC_DISPATCH(add_weighted_squares_target)(x, c, weight, d, squares);
}

} // namespace faiss_flash
#endif
