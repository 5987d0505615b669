#include <faiss_flash/trainer/model.h>

#include <cmath>

#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

const char* to_string(Covariance covariance) {
    switch (covariance) {
        case Covariance::spherical:
            return "spherical";
        case Covariance::tied_spherical:
            return "tied_spherical";
        case Covariance::diag:
            return "diag";
        case Covariance::tied_diag:
            return "tied_diag";
    }
    return "?";
}

Covariance covariance_by_name(const std::string& name) {
    for (Covariance covariance :
         {Covariance::spherical,
          Covariance::tied_spherical,
          Covariance::diag,
          Covariance::tied_diag}) {
        if (name == to_string(covariance)) {
            return covariance;
        }
    }
    FAISS_THROW_FMT(
            "covariance '%s' should be one of spherical, tied_spherical, "
            "diag, tied_diag",
            name.c_str());
}

bool is_diagonal(Covariance covariance) {
    return covariance == Covariance::diag ||
            covariance == Covariance::tied_diag;
}

bool is_tied(Covariance covariance) {
    return covariance == Covariance::tied_spherical ||
            covariance == Covariance::tied_diag;
}

void Model::make_diagonal() {
    if (is_diagonal()) {
        return;
    }
    const std::vector<float> spherical = std::move(variances);
    variances.clear();
    variances.reserve(k * d);
    for (float variance : spherical) {
        variances.insert(variances.end(), d, variance);
    }
}

bool is_variance_count(size_t count, size_t k, size_t d) {
    return k > 0 && (count == k || (count % k == 0 && count / k == d));
}

std::vector<double> log_scales(const Model& model) {
    const double two_pi = 6.283185307179586;
    const size_t per = model.variances_per_component();
    std::vector<double> scales(model.k);
#pragma omp parallel for schedule(static) if (model.variances.size() > 1 << 14)
    for (int64_t c = 0; c < (int64_t)model.k; c++) {
        double logs = 0;
        for (size_t j = c * per; j < (c + 1) * per; j++) {
            logs += std::log(two_pi * model.variances[j]);
        }
        // a weight of zero gives −inf: the component is never chosen
        scales[c] = std::log((double)model.weights[c]) -
                0.5 * model.dimensions_per_variance() * logs;
    }
    return scales;
}

std::vector<float> half_precisions(const Model& model) {
    std::vector<float> values(model.variances.size());
    for (size_t i = 0; i < values.size(); i++) {
        values[i] = 0.5 / model.variances[i];
    }
    return values;
}

} // namespace faiss_flash
