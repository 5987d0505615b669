#include <faiss_flash/cpu/packed_model.h>

#include <algorithm>
#include <limits>

#include <faiss_flash/cpu/kernels.h>

namespace faiss_flash {

namespace {

/// The median of the centroids in each dimension (of up to 64 of them). A few
/// that are far from the others do not take it away from the vectors, as they
/// would a mean; and as one of their own values it leaves whole numbers whole,
/// and ties between them exact.
std::vector<float> offset_of_centroids(const Model& model) {
    const size_t step = (model.k + 63) / 64;
    std::vector<float> offset(model.d), values;
    for (size_t j = 0; j < model.d; j++) {
        values.clear();
        for (size_t c = 0; c < model.k; c += step) {
            values.push_back(model.means[c * model.d + j]);
        }
        const auto middle = values.begin() + values.size() / 2;
        std::nth_element(values.begin(), middle, values.end());
        offset[j] = *middle;
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
