#include <faiss_flash/trainer/model.h>

#include <cmath>

namespace faiss_flash {

std::vector<double> log_scales(const Model& model) {
    const double two_pi = 6.283185307179586;
    std::vector<double> scales(model.k);
    for (size_t c = 0; c < model.k; c++) {
        // a weight of zero gives −inf: the component is never chosen
        scales[c] = std::log((double)model.weights[c]) -
                0.5 * model.d * std::log(two_pi * model.variances[c]);
    }
    return scales;
}

} // namespace faiss_flash
