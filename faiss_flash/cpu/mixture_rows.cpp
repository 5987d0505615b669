#include <faiss_flash/cpu/mixture_rows.h>

#include <algorithm>

namespace faiss_flash {

void MixtureRows::set_density(const float* x, Component& c) const {
    const size_t at = c.number * d();
    const float* mean = model_.means.data() + at;
    double exponent;
    if (model_.is_diagonal()) {
        exponent = weighted_distance(x, mean, &half_precisions_[at], d());
        c.dist = 0;
    } else {
        c.dist = l2_distance(x, mean, d());
        exponent = c.dist / (2.0 * model_.variances[c.number]);
    }
    c.log_density = scales_[c.number] - exponent;
}

void MixtureRows::evaluate_row(
        const float* x,
        const std::vector<Scored>& close,
        double range,
        MixtureRow& row) const {
    auto& components = row.components;
    components.clear();
    double top = -std::numeric_limits<double>::infinity();
    for (const Scored& s : close) {
        Component c;
        c.number = s.centroid;
        set_density(x, c);
        top = std::max(top, c.log_density);
        components.push_back(c);
    }
    if (!std::isfinite(top)) {
        // distances overflowed: as good as equally far from all
        components.assign(1, {close[0].centroid, 1, 0, 0});
        row.log_likelihood = -std::numeric_limits<float>::max();
        row.dropped_mass = 0;
        row.best = close[0].centroid;
        return;
    }
    components.erase(
            std::remove_if(
                    components.begin(),
                    components.end(),
                    [&](const Component& c) {
                        return !(c.log_density >= top - range);
                    }),
            components.end());

    double sum = 0;
    for (Component& c : components) {
        c.responsibility = std::exp(float(c.log_density - top));
        sum += c.responsibility;
    }
    const Component* best = &components[0];
    for (Component& c : components) {
        c.responsibility /= sum;
        if (c.responsibility > best->responsibility) {
            best = &c;
        }
    }
    row.best = best->number;
    row.log_likelihood = top + std::log(sum);
    row.dropped_mass = (model_.k - components.size()) * std::exp(-range) / sum;
}

} // namespace faiss_flash
