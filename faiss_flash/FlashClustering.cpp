#include <faiss_flash/FlashClustering.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>

#include <faiss_flash/check_input.h>
#include <faiss_flash/cuda/device_source.h>
#include <faiss_flash/trainer/random_rows.h>
#include <faiss_flash/trainer/trainer.h>
#include <faiss_flash/trainer/update.h>

namespace faiss_flash {

namespace {

/// FAISS: negative seeds ask for one from the clock, in newer versions.
int64_t resolve_seed(const faiss::ClusteringParameters& cp) {
    if (cp.seed >= 0 || !clustering_extras(cp).clock_seed) {
        return cp.seed;
    }
    return std::chrono::high_resolution_clock::now().time_since_epoch().count();
}

/// Row numbers of FAISS's training subsample for the same seed.
std::vector<int64_t> subsample_rows(
        size_t n,
        size_t wanted,
        bool faster,
        int64_t seed) {
    if (!faster) {
        return first_of_permutation(n, wanted, seed);
    }
    // FAISS ≥ 1.8: splitmix64, rows may repeat
    std::vector<int64_t> rows(wanted);
    uint64_t state = seed;
    for (int64_t& row : rows) {
        uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        z ^= z >> 31;
        row = (int64_t)(z & 0x7fffffffffffffffULL) % (int64_t)n;
    }
    return rows;
}

void check_weights(const char* what, size_t n, const float* weights) {
    bool positive = false;
    for (size_t i = 0; i < n; i++) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(weights[i]) && weights[i] >= 0,
                "%s: weights[%zd] = %g should be finite and at least 0",
                what,
                i,
                weights[i]);
        positive = positive || weights[i] > 0;
    }
    FAISS_THROW_IF_NOT_FMT(positive, "%s: all %zd weights are 0", what, n);
}

void print_pass(const PassReport& r) {
    if (r.pass == Pass::hard) {
        printf("  Iteration %d (%.2f s, search %.2f s): "
               "objective=%g imbalance=%.3f nsplit=%d       \r",
               r.number,
               r.seconds,
               r.accumulate_seconds,
               r.objective,
               r.imbalance,
               r.nsplit);
    } else {
        printf("  EM pass %d (%.2f s): log-likelihood=%.6f "
               "components/vector=%.2f nreseed=%d       \r",
               r.number,
               r.seconds,
               r.objective,
               r.entries_per_vector,
               r.nsplit);
    }
    fflush(stdout);
}

} // namespace

FlashClustering::FlashClustering(int d, int k) : faiss::Clustering(d, k) {}

FlashClustering::FlashClustering(
        int d,
        int k,
        const faiss::ClusteringParameters& cp)
        : faiss::Clustering(d, k, cp) {}

const char* FlashClustering::class_name() const {
    return "FlashClustering";
}

void FlashClustering::train(
        idx_t n,
        const float* x,
        faiss::Index& index,
        const float* weights) {
    train_encoded(
            n, reinterpret_cast<const uint8_t*>(x), nullptr, index, weights);
}

void FlashClustering::check_arguments(
        idx_t n,
        const void* x,
        const faiss::Index* codec,
        const faiss::Index& index,
        const float* weights) const {
    const char* name = class_name();
    FAISS_THROW_IF_NOT_FMT(
            (int64_t)d > 0,
            "%s: d = %" PRId64 " should be at least 1",
            name,
            (int64_t)d);
    FAISS_THROW_IF_NOT_FMT(
            (int64_t)k > 0,
            "%s: k = %" PRId64 " should be at least 1",
            name,
            (int64_t)k);
    FAISS_THROW_IF_NOT_FMT(
            n >= (idx_t)k,
            "%s: Number of training points (n = %" PRId64
            ") should be at least as large as number of clusters (k = %zd)",
            name,
            (int64_t)n,
            k);
    FAISS_THROW_IF_NOT_FMT(x, "%s: x is a null pointer", name);
    FAISS_THROW_IF_NOT_FMT(
            !codec || codec->d == (int)d,
            "%s: Codec dimension %d not the same as data dimension %d",
            name,
            codec ? codec->d : 0,
            (int)d);
    FAISS_THROW_IF_NOT_FMT(
            index.d == (int)d,
            "%s: Index dimension %d not the same as data dimension %d",
            name,
            index.d,
            (int)d);
    FAISS_THROW_IF_NOT_FMT(
            index.metric_type == faiss::METRIC_L2 ||
                    index.metric_type == faiss::METRIC_INNER_PRODUCT,
            "%s: metric_type = %d of the index is neither METRIC_L2 (%d) "
            "nor METRIC_INNER_PRODUCT (%d)",
            name,
            (int)index.metric_type,
            (int)faiss::METRIC_L2,
            (int)faiss::METRIC_INNER_PRODUCT);
    FAISS_THROW_IF_NOT_FMT(
            niter >= 0, "%s: niter = %d should be at least 0", name, niter);
    FAISS_THROW_IF_NOT_FMT(
            nredo >= 1, "%s: nredo = %d should be at least 1", name, nredo);
    FAISS_THROW_IF_NOT_FMT(
            max_points_per_centroid >= 1,
            "%s: max_points_per_centroid = %d should be at least 1",
            name,
            max_points_per_centroid);
    FAISS_THROW_IF_NOT_FMT(
            decode_block_size >= 1,
            "%s: decode_block_size = %zd should be at least 1",
            name,
            decode_block_size);
    FAISS_THROW_IF_NOT_FMT(
            centroids.size() % d == 0 && centroids.size() <= d * k,
            "%s: size of provided input centroids (%zd) should be a multiple "
            "of the dimension %zd and at most k * d = %zd",
            name,
            centroids.size(),
            d,
            d * k);
    check_finite("input centroids", centroids.size() / d, d, centroids.data());
    if (weights) {
        check_weights(name, n, weights);
    }
}

std::unique_ptr<VectorSource> FlashClustering::subsample(
        std::unique_ptr<VectorSource> source,
        const float* weights,
        int64_t resolved_seed) const {
    const idx_t n = source->n();
    const size_t most = k * (size_t)max_points_per_centroid;
    if ((size_t)n > most) {
        if (verbose) {
            printf("Sampling a subset of %zd / %" PRId64 " for training\n",
                   most,
                   (int64_t)n);
        }
        std::vector<int64_t> rows = subsample_rows(
                n,
                most,
                clustering_extras(*this).use_faster_subsampling,
                resolved_seed);
        FAISS_THROW_IF_NOT_FMT(
                !weights ||
                        std::any_of(
                                rows.begin(),
                                rows.end(),
                                [&](int64_t i) { return weights[i] > 0; }),
                "%s: all weights of the %zd sampled vectors are 0",
                class_name(),
                most);
        return source->on_device().data
                ? device_subset(*source, rows, engine_options.stream)
                : subset_source(std::move(source), std::move(rows));
    }
    if (n < (idx_t)k * min_points_per_centroid) {
        fprintf(stderr,
                "WARNING clustering %" PRId64
                " points to %zd centroids: "
                "please provide at least %" PRId64 " training points\n",
                (int64_t)n,
                k,
                (int64_t)k * min_points_per_centroid);
    }
    return source;
}

TrainingPlan FlashClustering::make_plan(
        const VectorSource& source,
        faiss::MetricType metric,
        int64_t resolved_seed) const {
    const ClusteringExtras extras = clustering_extras(*this);
    TrainingPlan plan;
    plan.k = k;
    plan.metric = metric == faiss::METRIC_INNER_PRODUCT ? Metric::inner_product
                                                        : Metric::l2;
    plan.hard_passes = niter;
    plan.nredo = nredo;
    plan.seed = resolved_seed;
    plan.spherical = spherical;
    plan.int_centroids = int_centroids;
    plan.given = centroids;
    plan.freeze_given = frozen_centroids;
    plan.early_stop_threshold = extras.early_stop_threshold;
    if (extras.seeded_init && centroids.size() < k * d) {
        // FAISS's seeding wants all vectors at once
        plan.init = [this, &source, resolved_seed](
                            int redo, std::vector<float>& means) {
            std::vector<float> buffer;
            const float* all = source.rows(0, source.n(), buffer);
            seeded_init(
                    *this,
                    d,
                    k,
                    source.n(),
                    all,
                    resolved_seed + 1 + redo * 15486557L,
                    centroids.size() / d,
                    means.data());
        };
    }
    plan.on_pass = [this](const PassReport& report) {
        if (verbose) {
            print_pass(report);
        }
        faiss::InterruptCallback::check();
    };
    plan.engine_options = engine_options;
    complete_plan(plan);
    return plan;
}

void FlashClustering::train_encoded(
        idx_t n,
        const uint8_t* x,
        const faiss::Index* codec,
        faiss::Index& index,
        const float* weights) {
    check_arguments(n, x, codec, index, weights);
    if (codec) {
        train_on(
                codec_source(n, *codec, x, decode_block_size, weights),
                index,
                weights);
        return;
    }
    const float* floats = reinterpret_cast<const float*>(x);
    if (clustering_extras(*this).check_input_data_for_NaNs) {
        check_finite(class_name(), n, d, floats);
    }
    train_on(array_source(n, d, floats, weights), index, weights);
}

void FlashClustering::train_device(
        idx_t n,
        const void* x,
        VectorType type,
        faiss::Index& index,
        const float* weights) {
    check_arguments(n, x, nullptr, index, weights);
    train_on(
            device_source(
                    class_name(),
                    n,
                    d,
                    {x, type},
                    engine_options.stream,
                    weights),
            index,
            weights);
}

void FlashClustering::train_on(
        std::unique_ptr<VectorSource> all,
        faiss::Index& index,
        const float* weights) {
    const Engine& chosen = get_engine(engine);
    const int64_t resolved_seed = resolve_seed(*this);
    const std::unique_ptr<VectorSource> source =
            subsample(std::move(all), weights, resolved_seed);
    const TrainingPlan plan =
            make_plan(*source, index.metric_type, resolved_seed);

    TrainingResult result;
    if (source->n() == k) {
        // FAISS: nothing to cluster, every vector is a centroid
        result = copy_vectors(*source);
    } else {
        if (verbose) {
            printf("Clustering %zd points in %zdD to %zd clusters, "
                   "redo %d times, %d iterations on engine %s\n",
                   source->n(),
                   d,
                   k,
                   nredo,
                   plan.hard_passes + plan.soft_passes,
                   chosen.name());
        }
        result = faiss_flash::train(plan, chosen, *source);
        if (verbose) {
            printf("\n");
        }
    }

    index.reset();
    if (update_index || !index.is_trained) {
        index.train(k, result.model.means.data());
    }
    index.add(k, result.model.means.data());
    take_result(result);
}

TrainingResult FlashClustering::copy_vectors(const VectorSource& source) const {
    if (verbose) {
        printf("Number of training points (%zd) same as number of "
               "clusters, just copying\n",
               k);
    }
    std::vector<float> buffer;
    const float* rows = source.rows(0, k, buffer);
    TrainingResult result;
    result.model.k = k;
    result.model.d = d;
    result.model.means.assign(rows, rows + k * d);
    result.model.variances.assign(k, smallest_variance(result.model));
    result.model.weights.assign(k, 1.0f / k);
    result.passes.push_back(PassReport()); // one empty iteration, as FAISS
    return result;
}

void FlashClustering::complete_plan(TrainingPlan&) const {}

void FlashClustering::take_result(TrainingResult& result) {
    centroids = std::move(result.model.means);
    variances = std::move(result.model.variances);
    mixing_weights = std::move(result.model.weights);
    for (const PassReport& r : result.passes) {
        if (r.pass == Pass::hard) {
            faiss::ClusteringIterationStats stats;
            stats.obj = r.objective;
            stats.time = r.seconds;
            stats.time_search = r.accumulate_seconds;
            stats.imbalance_factor = r.imbalance;
            stats.nsplit = r.nsplit;
            iteration_stats.push_back(stats);
        }
    }
}

Model FlashClustering::model(faiss::MetricType metric) const {
    Model m;
    m.k = k;
    m.d = d;
    m.metric = metric == faiss::METRIC_INNER_PRODUCT ? Metric::inner_product
                                                     : Metric::l2;
    m.means = centroids;
    m.variances = variances;
    m.weights = mixing_weights;
    return m;
}

} // namespace faiss_flash
