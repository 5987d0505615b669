#include <faiss_flash/coarse_training.h>

#include <cinttypes>
#include <cstdio>
#include <memory>
#include <utility>

#include <faiss/IndexFlat.h>

#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/engine/engine.h>
#include <faiss_flash/trainer/source.h>
#include <faiss_flash/trainer/update.h>

namespace faiss_flash {

bool quantizer_is_ready(const faiss::IndexIVF& index) {
    return index.quantizer->is_trained &&
            index.quantizer->ntotal == (idx_t)index.nlist;
}

namespace {

std::unique_ptr<FlashClustering> make_clustering(
        const faiss::IndexIVF& index,
        const FlashOptions& options) {
    std::unique_ptr<FlashClustering> clustering;
    if (options.trainer == Trainer::gmm) {
        clustering = std::make_unique<GMMClustering>(
                index.d, index.nlist, index.cp, options.gmm);
    } else {
        clustering = std::make_unique<FlashClustering>(
                index.d, index.nlist, index.cp);
    }
    clustering->engine = options.engine;
    return clustering;
}

void train_by_itself(faiss::IndexIVF& index, idx_t n, const float* x) {
    index.quantizer->train(n, x);
    FAISS_THROW_IF_NOT_FMT(
            quantizer_is_ready(index),
            "the quantizer trained itself to %" PRId64
            " centroids, should be nlist = %zd",
            (int64_t)index.quantizer->ntotal,
            index.nlist);
}

} // namespace

ListMixture train_coarse_quantizer(
        faiss::IndexIVF& index,
        const FlashOptions& options,
        idx_t n,
        const float* x) {
    faiss::Index& quantizer = *index.quantizer;
    const auto alone = static_cast<unsigned char>(index.quantizer_trains_alone);
    if (index.verbose) {
        printf("Training the coarse quantizer (%s) on %" PRId64
               " vectors in %dD\n",
               alone == 1 ? "by itself" : to_string(options.trainer),
               (int64_t)n,
               index.d);
    }
    if (alone == 1) {
        train_by_itself(index, n, x);
        return {};
    }
    FAISS_THROW_IF_NOT_FMT(
            alone == 0 || alone == 2,
            "quantizer_trains_alone = %d should be 0, 1 or 2",
            alone);
    // as in FAISS, where spherical makes L2 and inner product equivalent
    FAISS_THROW_IF_NOT_MSG(
            alone == 0 || index.metric_type == faiss::METRIC_L2 ||
                    index.cp.spherical,
            "quantizer_trains_alone = 2 with METRIC_INNER_PRODUCT should "
            "have cp.spherical set");

    const auto clustering = make_clustering(index, options);
    faiss::IndexFlat flat(
            index.d, alone == 2 ? faiss::METRIC_L2 : quantizer.metric_type);
    clustering->train(
            n, x, index.clustering_index ? *index.clustering_index : flat);

    const float* centroids = clustering->centroids.data();
    quantizer.reset();
    if (!quantizer.is_trained) {
        quantizer.train(index.nlist, centroids);
    }
    quantizer.add(index.nlist, centroids);
    quantizer.is_trained = true;
    return {std::move(clustering->variances),
            std::move(clustering->mixing_weights)};
}

namespace {

/// Read the centroids as clusters of (a sample of) x, by one hard pass.
ListMixture estimate_mixture(
        const faiss::IndexIVF& index,
        const Engine& engine,
        idx_t n,
        const float* x) {
    Model model = coarse_model(index, {}, {});
    model.metric = Metric::l2;
    auto source = array_source(n, index.d, x, nullptr);
    const size_t most = 256 * index.nlist;
    if ((size_t)n > most) {
        std::vector<int64_t> rows(most);
        for (size_t i = 0; i < most; i++) {
            rows[i] = (double)i * n / most;
        }
        source = subset_source(std::move(source), std::move(rows));
    }
    if (index.verbose) {
        printf("Estimating the variance of %zd given centroids from %zd "
               "vectors\n",
               index.nlist,
               source->n());
    }
    Statistics stats;
    engine.open(*source)->accumulate(model, Pass::hard, stats);
    mixture_from_clusters(stats, model);
    return {std::move(model.variances), std::move(model.weights)};
}

} // namespace

void complete_mixture(
        faiss::IndexIVF& index,
        const FlashOptions& options,
        idx_t n,
        const float* x,
        ListMixture& mixture) {
    auto* quantizer = dynamic_cast<MixtureQuantizer*>(index.quantizer);
    if (quantizer && quantizer->is_mixture()) {
        mixture = {quantizer->variances, quantizer->mixing_weights};
        return;
    }
    const bool known =
            is_variance_count(mixture.variances.size(), index.nlist, index.d) &&
            mixture.mixing_weights.size() == index.nlist;
    const bool needed = options.policy.rule == AssignmentRule::responsibility;
    if (!known && needed) {
        mixture = estimate_mixture(index, get_engine(options.engine), n, x);
    }
    if (quantizer && (known || needed)) {
        quantizer->set_mixture(mixture.variances, mixture.mixing_weights);
    }
}

Model coarse_model(
        const faiss::IndexIVF& index,
        const std::vector<float>& variances,
        const std::vector<float>& mixing_weights) {
    FAISS_THROW_IF_NOT_MSG(index.quantizer, "the index has no quantizer");
    const faiss::Index& quantizer = *index.quantizer;
    FAISS_THROW_IF_NOT_FMT(
            quantizer.ntotal == (idx_t)index.nlist,
            "the quantizer holds %" PRId64
            " centroids, should be nlist = %zd; call train()",
            (int64_t)quantizer.ntotal,
            index.nlist);
    Model model;
    model.k = index.nlist;
    model.d = index.d;
    model.metric = quantizer.metric_type == faiss::METRIC_INNER_PRODUCT
            ? Metric::inner_product
            : Metric::l2;
    model.means.resize(model.k * model.d);
    quantizer.reconstruct_n(0, model.k, model.means.data());
    auto* mixture = dynamic_cast<const MixtureQuantizer*>(&quantizer);
    if (mixture && mixture->is_mixture()) {
        model.variances = mixture->variances;
        model.weights = mixture->mixing_weights;
    } else if (
            is_variance_count(variances.size(), model.k, model.d) &&
            mixing_weights.size() == model.k) {
        model.variances = variances;
        model.weights = mixing_weights;
    }
    return model;
}

} // namespace faiss_flash
