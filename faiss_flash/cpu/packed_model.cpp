#include <faiss_flash/cpu/packed_model.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <faiss_flash/cpu/kernels.h>

namespace faiss_flash {

namespace {

float median(std::vector<float>& values) {
    const auto middle = values.begin() + values.size() / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// The median of the centroids in each dimension (from a sample of them):
/// a few far from the others do not take it away from the vectors as they
/// would a mean. It is rounded to a power of two that is an eighth of the
/// spread or less, so that whole numbers and other short fractions, and ties
/// between them, stay exact when they are shifted.
std::vector<float> offset_of_centroids(const Model& model) {
    const size_t d = model.d;
    const size_t step = (model.k + 63) / 64;
    std::vector<float> offset(d), values;
    double spread = 0;
    for (size_t j = 0; j < d; j++) {
        values.clear();
        for (size_t c = 0; c < model.k; c += step) {
            values.push_back(model.means[c * d + j]);
        }
        offset[j] = median(values);
        for (float& value : values) {
            value = std::abs(value - offset[j]);
        }
        spread += median(values) / double(d);
    }
    if (spread > 0 && std::isfinite(spread)) {
        const double grid = std::exp2(std::floor(std::log2(spread)) - 3);
        for (float& value : offset) {
            value = float(std::round(value / grid) * grid);
        }
    }
    return offset;
}

void set_score(
        const Model& model,
        ScoreKind kind,
        const std::vector<double>& scales,
        size_t c,
        double norm2,
        PackedModel& packed) {
    if (kind == ScoreKind::log_density) {
        const double half_precision = 0.5 / model.variances[c];
        packed.alpha[c] = scales[c] - norm2 * half_precision;
        packed.beta[c] = 2 * half_precision;
        packed.gamma[c] = -half_precision;
        packed.max_precision = std::max(packed.max_precision, half_precision);
    } else {
        const bool l2 = model.metric == Metric::l2;
        packed.alpha[c] = l2 ? -norm2 : 0;
        packed.beta[c] = l2 ? 2 : 1;
        packed.gamma[c] = 0;
    }
}

} // namespace

PackedModel pack_model(const Model& model, ScoreKind kind) {
    PackedModel packed;
    const size_t d = model.d;
    packed.k = model.k;
    packed.d = d;
    packed.width = panel_width();
    packed.panels = (model.k + packed.width - 1) / packed.width;
    const size_t columns = packed.panels * packed.width;
    packed.centroids = hwy::AllocateAligned<float>(columns * d);
    packed.alpha = hwy::AllocateAligned<float>(columns);
    packed.beta = hwy::AllocateAligned<float>(columns);
    packed.gamma = hwy::AllocateAligned<float>(columns);
    if (!packed.centroids || !packed.alpha || !packed.beta || !packed.gamma) {
        throw std::bad_alloc();
    }
    const bool shift =
            kind == ScoreKind::log_density || model.metric == Metric::l2;
    packed.offset = shift ? offset_of_centroids(model) : std::vector<float>(d);

    std::vector<double> scales;
    if (kind == ScoreKind::log_density) {
        scales = log_scales(model);
    }
    for (size_t c = 0; c < columns; c++) {
        float* column = packed.centroids.get() +
                c / packed.width * packed.width * d + c % packed.width;
        if (c >= model.k) {
            for (size_t j = 0; j < d; j++) {
                column[j * packed.width] = 0;
            }
            packed.alpha[c] = -std::numeric_limits<float>::infinity();
            packed.beta[c] = packed.gamma[c] = 0;
            continue;
        }
        double norm2 = 0;
        for (size_t j = 0; j < d; j++) {
            const float value = model.means[c * d + j] - packed.offset[j];
            column[j * packed.width] = value;
            norm2 += (double)value * value;
        }
        packed.max_norm2 = std::max(packed.max_norm2, norm2);
        set_score(model, kind, scales, c, norm2, packed);
    }
    return packed;
}

} // namespace faiss_flash
