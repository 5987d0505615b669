#include <faiss_flash/cpu/packed_model.h>

#include <algorithm>
#include <cmath>
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

/// s_j = √max_c h_cj of diagonal covariances.
std::vector<float> scale_of_variances(const Model& model) {
    const size_t d = model.d;
    std::vector<float> scale(d);
    for (size_t j = 0; j < d; j++) {
        float smallest = model.variances[j];
        for (size_t c = 1; c < model.k; c++) {
            smallest = std::min(smallest, model.variances[c * d + j]);
        }
        scale[j] = std::sqrt(0.5 / smallest);
    }
    return scale;
}

bool is_tied(const Model& model) {
    const auto begin = model.variances.begin();
    for (size_t c = 1; c < model.k; c++) {
        if (!std::equal(begin, begin + model.d, begin + c * model.d)) {
            return false;
        }
    }
    return true;
}

/// What the formulas in the header need of a model.
class Packer {
   public:
    Packer(const Model& model, ScoreKind kind)
            : model_(model),
              density_(kind == ScoreKind::log_density),
              scaled_(density_ && model.is_diagonal()),
              squares_(scaled_ && !is_tied(model)) {
        if (density_) {
            log_scales_ = log_scales(model);
        }
    }

    PackedModel run() {
        PackedModel packed;
        const size_t d = model_.d;
        packed.k = model_.k;
        packed.d = d;
        packed.terms = squares_ ? 2 * d : d;
        packed.width = panel_width();
        packed.panels = (model_.k + packed.width - 1) / packed.width;
        const size_t columns = packed.panels * packed.width;
        packed.centroids = hwy::AllocateAligned<float>(columns * packed.terms);
        packed.alpha = hwy::AllocateAligned<float>(columns);
        packed.beta = hwy::AllocateAligned<float>(columns);
        packed.gamma = hwy::AllocateAligned<float>(columns);
        if (!packed.centroids || !packed.alpha || !packed.beta ||
            !packed.gamma) {
            throw std::bad_alloc();
        }
        const bool shift = density_ || model_.metric == Metric::l2;
        packed.offset =
                shift ? offset_of_centroids(model_) : std::vector<float>(d);
        packed.scale = scaled_ ? scale_of_variances(model_)
                               : std::vector<float>(d, 1.0f);
        // a few roundings of the largest term; of a sum over 2d terms of
        // either sign three times what roundings of random sign come to
        packed.rounding =
                squares_ ? (8 + 4 * std::sqrt(2.0 * d)) * 0x1p-24 : 0x1p-21;
        for (size_t c = 0; c < columns; c++) {
            float* column = packed.centroids.get() +
                    c / packed.width * packed.width * packed.terms +
                    c % packed.width;
            if (c < model_.k) {
                set_column(c, column, packed);
            } else {
                for (size_t t = 0; t < packed.terms; t++) {
                    column[t * packed.width] = 0;
                }
                packed.alpha[c] = -std::numeric_limits<float>::infinity();
                packed.beta[c] = packed.gamma[c] = 0;
            }
        }
        return packed;
    }

   private:
    void set_column(size_t c, float* column, PackedModel& packed) const {
        const size_t d = model_.d, width = packed.width;
        double norm2 = 0;
        for (size_t j = 0; j < d; j++) {
            const float value = (model_.means[c * d + j] - packed.offset[j]) *
                    packed.scale[j];
            if (!squares_) {
                column[j * width] = value;
                norm2 += (double)value * value;
                continue;
            }
            const double unit = (double)packed.scale[j] * packed.scale[j];
            const float g = 0.5 / model_.variances[c * d + j] / unit;
            column[2 * j * width] = -g;
            column[(2 * j + 1) * width] = 2 * g * value;
            norm2 += (double)g * value * value;
        }
        packed.max_norm2 = std::max(packed.max_norm2, norm2);
        set_score(c, norm2, packed);
    }

    void set_score(size_t c, double norm2, PackedModel& packed) const {
        if (!density_) {
            const bool l2 = model_.metric == Metric::l2;
            packed.alpha[c] = l2 ? -norm2 : 0;
            packed.beta[c] = l2 ? 2 : 1;
            packed.gamma[c] = 0;
            return;
        }
        const double half_precision = scaled_ ? 1 : 0.5 / model_.variances[c];
        packed.alpha[c] = log_scales_[c] - norm2 * half_precision;
        packed.beta[c] = squares_ ? 1 : 2 * half_precision;
        packed.gamma[c] = squares_ ? 0 : -half_precision;
        packed.max_precision = std::max(packed.max_precision, half_precision);
    }

    const Model& model_;
    const bool density_; ///< log p rather than a distance or product
    const bool scaled_;  ///< diagonal covariances
    const bool squares_; ///< which differ between components
    std::vector<double> log_scales_;
};

} // namespace

PackedModel pack_model(const Model& model, ScoreKind kind) {
    return Packer(model, kind).run();
}

} // namespace faiss_flash
