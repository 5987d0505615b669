#pragma once

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <faiss_flash/cpu/kernels.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

/// One component that holds a share of a vector.
struct Component {
    uint32_t number;
    float responsibility;
    float dist; ///< ‖x − μ‖², of spherical components only
    double log_density;
};

/// What the mixture says of one vector.
struct MixtureRow {
    std::vector<Component> components; ///< ascending number, never empty
    double log_likelihood = 0;         ///< log p(x) over the components
    double dropped_mass = 0;           ///< bound on what the others hold
    uint32_t best = 0;                 ///< largest responsibility
};

/** Responsibilities of rows, sparse.
 *
 * Single-precision scores find the components that can lie within
 * ln(k/10⁻⁶) nats of a row's best (with room for their rounding); the
 * densities of those few are then computed from the differences x − μ
 * themselves. The at most k others together hold less than 10⁻⁶ of the
 * vector.
 */
class MixtureRows {
   public:
    /// `model` may be a plain set of centroids as long as evaluate() is not
    /// called.
    MixtureRows(const Model& model, const PackedModel& packed)
            : model_(model),
              packed_(packed) {
        if (model.is_mixture()) {
            scales_ = log_scales(model);
        }
        if (model.is_diagonal()) {
            half_precisions_ = half_precisions(model);
        }
    }

    size_t d() const {
        return model_.d;
    }

    /// each(i, row) for every row i; `row` is scratch that each() may
    /// change. At most row_block rows.
    template <class Each>
    void evaluate(
            size_t rows,
            const float* x,
            ScoreScratch& scratch,
            Each&& each) const {
        const double range = std::log(model_.k / max_dropped_mass);
        close_centroids(packed_, rows, x, range, scratch);
        MixtureRow row;
        for (size_t i = 0; i < rows; i++) {
            if (scratch.picked[i].empty()) {
                // scores overflowed single precision: look at everything
                add_all(scratch.picked[i]);
            }
            evaluate_row(x + i * d(), scratch.picked[i], range, row);
            each(i, row);
        }
    }

   private:
    void add_all(std::vector<Scored>& close) const {
        for (size_t c = 0; c < model_.k; c++) {
            close.push_back({uint32_t(c), 0});
        }
    }

    /// Everything of `c` but its responsibility.
    void set_density(const float* x, Component& c) const;

    void evaluate_row(
            const float* x,
            const std::vector<Scored>& close,
            double range,
            MixtureRow& row) const;

    const Model& model_;
    const PackedModel& packed_;
    std::vector<double> scales_;
    std::vector<float> half_precisions_; ///< (k, d), of diagonal models
};

} // namespace faiss_flash
