#include <faiss_flash/MixtureQuantizer.h>

#include <cinttypes>
#include <cmath>
#include <utility>

#include <faiss_flash/check_input.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

MixtureQuantizer::MixtureQuantizer(
        size_t d,
        size_t nlist,
        faiss::MetricType metric)
        : faiss::IndexFlat(d, metric),
          nlist(nlist) {
    FAISS_THROW_IF_NOT_FMT(
            metric == faiss::METRIC_L2 || metric == faiss::METRIC_INNER_PRODUCT,
            "MixtureQuantizer: metric = %d should be METRIC_L2 (%d) or "
            "METRIC_INNER_PRODUCT (%d)",
            (int)metric,
            (int)faiss::METRIC_L2,
            (int)faiss::METRIC_INNER_PRODUCT);
    // as IndexIVF does for inner products
    cp.spherical = metric == faiss::METRIC_INNER_PRODUCT;
}

void MixtureQuantizer::train(idx_t n, const float* x) {
    GMMClustering clustering(d, nlist, cp, gmm);
    clustering.engine = engine;
    clustering.verbose = cp.verbose || verbose;
    // into a scratch index first: a failure leaves this one as it was
    faiss::IndexFlat means(d, metric_type);
    clustering.train(n, x, means);

    reset();
    add(nlist, clustering.centroids.data());
    set_mixture(
            std::move(clustering.variances),
            std::move(clustering.mixing_weights));
}

void MixtureQuantizer::add(idx_t n, const float* x) {
    faiss::IndexFlat::add(n, x);
    variances.clear();
    mixing_weights.clear();
}

void MixtureQuantizer::reset() {
    faiss::IndexFlat::reset();
    variances.clear();
    mixing_weights.clear();
}

size_t MixtureQuantizer::remove_ids(const faiss::IDSelector& sel) {
    const size_t nremove = faiss::IndexFlat::remove_ids(sel);
    if (nremove > 0) {
        variances.clear();
        mixing_weights.clear();
    }
    return nremove;
}

bool MixtureQuantizer::is_mixture() const {
    return is_variance_count(variances.size(), ntotal, d) &&
            mixing_weights.size() == (size_t)ntotal;
}

void MixtureQuantizer::set_mixture(
        std::vector<float> new_variances,
        std::vector<float> new_weights) {
    FAISS_THROW_IF_NOT_FMT(
            is_variance_count(new_variances.size(), ntotal, d) &&
                    new_weights.size() == (size_t)ntotal,
            "MixtureQuantizer: %zd variances and %zd mixing_weights for "
            "ntotal = %" PRId64 " vectors in %d dimensions",
            new_variances.size(),
            new_weights.size(),
            (int64_t)ntotal,
            (int)d);
    for (size_t i = 0; i < new_variances.size(); i++) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(new_variances[i]) && new_variances[i] > 0,
                "MixtureQuantizer: variances[%zd] = %g should be finite and "
                "above 0",
                i,
                new_variances[i]);
    }
    double total = 0;
    for (size_t c = 0; c < new_weights.size(); c++) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(new_weights[c]) && new_weights[c] >= 0,
                "MixtureQuantizer: mixing_weights[%zd] = %g should be finite "
                "and at least 0",
                c,
                new_weights[c]);
        total += new_weights[c];
    }
    FAISS_THROW_IF_NOT_FMT(
            std::fabs(total - 1) <= 1e-3,
            "MixtureQuantizer: mixing_weights sum to %g, should be 1 within "
            "1e-3",
            total);
    variances = std::move(new_variances);
    mixing_weights = std::move(new_weights);
}

Model MixtureQuantizer::model() const {
    Model model;
    model.k = ntotal;
    model.d = d;
    model.metric = metric_type == faiss::METRIC_INNER_PRODUCT
            ? Metric::inner_product
            : Metric::l2;
    model.means.resize(model.k * model.d);
    reconstruct_n(0, ntotal, model.means.data());
    if (is_mixture()) {
        model.variances = variances;
        model.weights = mixing_weights;
    }
    return model;
}

void MixtureQuantizer::responsibilities(
        idx_t n,
        const float* x,
        idx_t m,
        idx_t* labels,
        float* responsibilities,
        float* log_likelihood) const {
    FAISS_THROW_IF_NOT_MSG(
            is_mixture(),
            "MixtureQuantizer: holds no mixture: train() it or call "
            "set_mixture()");
    FAISS_THROW_IF_NOT_FMT(
            n >= 0,
            "MixtureQuantizer: n = %" PRId64 " should be at least 0",
            (int64_t)n);
    FAISS_THROW_IF_NOT_FMT(
            m >= 1 && m <= ntotal,
            "MixtureQuantizer: m = %" PRId64
            " should be at least 1 and at most ntotal = %" PRId64,
            (int64_t)m,
            (int64_t)ntotal);
    if (n == 0) {
        return;
    }
    check_finite("MixtureQuantizer", n, d, x);
    get_engine(engine, (double)n * ntotal * d)
            .responsibilities(
                    model(), n, x, m, labels, responsibilities, log_likelihood);
}

} // namespace faiss_flash
