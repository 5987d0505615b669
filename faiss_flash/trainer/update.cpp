#include <faiss_flash/trainer/update.h>

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <faiss/utils/distances.h>
#include <faiss/utils/random.h>

namespace faiss_flash {

void update_centroids(const Statistics& stats, size_t n_frozen, Model& model) {
    const size_t d = model.d;
    for (size_t c = n_frozen; c < model.k; c++) {
        // 1/count is rounded like FAISS's: where the sums are exact, as of
        // whole numbers, the centroids are FAISS's
        const double count = stats.counts[c];
        const float rounded = float(1 / count);
        double scale = std::isnormal(rounded) ? rounded : 1 / count;
        if (count <= 0) {
            scale = 0;
        }
        for (size_t j = 0; j < d; j++) {
            model.means[c * d + j] = stats.sums[c * d + j] * scale;
        }
    }
}

namespace {

/// FAISS's random pick of the cluster to split: walk over the clusters,
/// stopping at each with probability (size − 1) / (n − k). FAISS walks for
/// ever if no size exceeds 1, and for hours if none does by much (small
/// weights); here the walk ends with `steps_left` and at the largest cluster.
size_t pick_cluster(
        int64_t n,
        size_t n_frozen,
        const std::vector<float>& sizes,
        faiss::RandomGenerator& rng,
        size_t& steps_left) {
    const size_t k = sizes.size() - n_frozen;
    const float* size = sizes.data() + n_frozen;
    const size_t largest = std::max_element(size, size + k) - size;
    if (size[largest] > 1) {
        for (size_t c = 0; steps_left > 0; c = (c + 1) % k, steps_left--) {
            const float p = (size[c] - 1.0) / (float)(n - k);
            if (rng.rand_float() < p) {
                return n_frozen + c;
            }
        }
    }
    return n_frozen + largest;
}

} // namespace

int split_empty_clusters(
        int64_t n,
        size_t n_frozen,
        std::vector<float>& sizes,
        Model& model) {
    const size_t d = model.d;
    const float eps = 1 / 1024.;
    faiss::RandomGenerator rng(1234);
    size_t steps_left = size_t(1) << 27; // about half a second
    int nsplit = 0;
    for (size_t empty = n_frozen; empty < model.k; empty++) {
        if (sizes[empty] != 0) {
            continue;
        }
        const size_t full = pick_cluster(n, n_frozen, sizes, rng, steps_left);
        float* a = model.means.data() + empty * d;
        float* b = model.means.data() + full * d;
        for (size_t j = 0; j < d; j++) {
            const float sign = j % 2 == 0 ? 1 : -1;
            const float mean = b[j];
            a[j] = mean * (1 + sign * eps);
            b[j] = mean * (1 - sign * eps);
        }
        sizes[empty] = sizes[full] / 2;
        sizes[full] -= sizes[empty];
        nsplit++;
    }
    return nsplit;
}

void post_process(
        const TrainingPlan& plan,
        size_t d,
        size_t count,
        float* means) {
    if (plan.spherical) {
        faiss::fvec_renorm_L2(d, count, means);
    }
    if (plan.int_centroids) {
        for (size_t i = 0; i < count * d; i++) {
            means[i] = std::round(means[i]);
        }
    }
}

void post_process(const TrainingPlan& plan, Model& model) {
    post_process(plan, model.d, model.k, model.means.data());
}

namespace {

double sum(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
}

double negligible(double mean_square) {
    return std::max(1e-9 * mean_square, 1e-30);
}

/// Enough to divide by.
bool has_weight(double count) {
    return count >= std::numeric_limits<double>::min();
}

void set_weights(const std::vector<double>& counts, Model& model) {
    const double total = sum(counts);
    model.weights.resize(model.k);
    for (size_t c = 0; c < model.k; c++) {
        model.weights[c] = counts[c] / total;
    }
}

} // namespace

void mixture_from_clusters(const Statistics& stats, Model& model) {
    set_weights(stats.counts, model);
    const double variance = sum(stats.energy) / (model.d * sum(stats.counts));
    model.variances.assign(
            model.k, std::max(variance, smallest_variance(model)));
}

double smallest_variance(const Model& model) {
    double squares = 0;
    for (float value : model.means) {
        squares += (double)value * value;
    }
    return negligible(squares / model.means.size());
}

std::vector<double> variance_floor(
        const TrainingPlan& plan,
        const Statistics& first,
        const Model& model) {
    const size_t d = model.d, per = model.variances_per_component();
    double start = 0;
    for (size_t c = 0; c < model.k; c++) {
        start += (double)model.weights[c] * model.variances[c * per];
    }
    if (per == 1) {
        return {std::max(
                plan.variance_floor * start, smallest_variance(model))};
    }
    std::vector<double> spread(d), squares(d);
    for (size_t i = 0; i < model.means.size(); i++) {
        spread[i % d] += first.energy[i];
        squares[i % d] += (double)model.means[i] * model.means[i];
    }
    const double total = sum(first.counts);
    const double least = 1e-3 * sum(spread) / d;
    std::vector<double> floor(d);
    for (size_t j = 0; j < d; j++) {
        const double variance = std::max(spread[j], least) / total;
        floor[j] = std::max(
                plan.variance_floor * variance,
                negligible(squares[j] / model.k));
        floor[j] = std::min(floor[j], start);
    }
    return floor;
}

void update_mixture(
        const TrainingPlan& plan,
        const Statistics& stats,
        size_t n_frozen,
        const std::vector<double>& floor,
        Model& model) {
    const size_t d = model.d;
    const size_t per = model.variances_per_component();
    const double dimensions = model.dimensions_per_variance();
    std::vector<double> energy(model.k * per);
    // waking threads takes longer than what is less than this
    const int threads = model.k * d > 1 << 20 ? omp_get_max_threads() : 1;
    std::vector<float> old(threads * d);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t c = 0; c < (int64_t)model.k; c++) {
        const double count = stats.counts[c];
        const double* sums = stats.sums.data() + c * d;
        float* to = model.means.data() + c * d;
        float* from = old.data() + omp_get_thread_num() * d;
        std::copy_n(to, d, from);
        if (c >= (int64_t)n_frozen && has_weight(count)) {
            const double scale = 1 / count;
            for (size_t j = 0; j < d; j++) {
                to[j] = sums[j] * scale;
            }
        }
        post_process(plan, d, 1, to);
        const auto moved = [&](size_t j) {
            const double a = from[j], b = to[j];
            return (a - b) * (2 * sums[j] - count * (a + b));
        };
        const double* before = stats.energy.data() + c * per;
        double* after = energy.data() + c * per;
        if (per == 1) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (size_t j = 0; j < d; j++) {
                sum += moved(j);
            }
            *after = std::max(*before + sum, 0.0);
            continue;
        }
        for (size_t j = 0; j < d; j++) {
            after[j] = std::max(before[j] + moved(j), 0.0);
        }
    }

    const bool tied = is_tied(plan.covariance);
    std::vector<double> shared(per);
    for (size_t c = 0; c < model.k; c++) {
        for (size_t j = 0; j < per; j++) {
            shared[j] += energy[c * per + j];
        }
    }
    const double total = sum(stats.counts);
    for (size_t c = 0; c < model.k; c++) {
        const double count = tied ? total : stats.counts[c];
        if (!has_weight(count)) {
            continue;
        }
        const double scale = 1 / (dimensions * count);
        const double* of = tied ? shared.data() : energy.data() + c * per;
        float* variances = model.variances.data() + c * per;
        for (size_t j = 0; j < per; j++) {
            variances[j] = std::max(of[j] * scale, floor[j]);
        }
    }
    set_weights(stats.counts, model);
}

int reseed_components(
        const TrainingPlan& plan,
        const Statistics& stats,
        size_t n_frozen,
        Model& model) {
    const size_t d = model.d;
    const size_t per = model.variances_per_component();
    const auto is_poor = [&](float weight) {
        return weight * model.k < plan.min_weight;
    };
    if (std::none_of(
                model.weights.begin() + n_frozen,
                model.weights.end(),
                is_poor)) {
        return 0;
    }
    std::vector<double> energy(model.k);
    for (size_t c = 0; c < model.k; c++) {
        const double* of = stats.energy.data() + c * per;
        energy[c] = std::accumulate(of, of + per, 0.0);
    }
    int nreseed = 0;
    for (size_t poor = n_frozen; poor < model.k; poor++) {
        if (!is_poor(model.weights[poor])) {
            continue;
        }
        const size_t rich =
                std::max_element(energy.begin() + n_frozen, energy.end()) -
                energy.begin();
        if (rich == poor || energy[rich] <= 0) {
            continue;
        }
        faiss::RandomGenerator rng(1234 + (int64_t)poor);
        const auto variances = model.variances.begin();
        for (size_t j = 0; j < d; j++) {
            const float step =
                    0.1f * std::sqrt(variances[rich * per + j % per]);
            const float shift = rng.rand_float() < 0.5f ? step : -step;
            const float mean = model.means[rich * d + j];
            model.means[poor * d + j] = mean + shift;
            model.means[rich * d + j] = mean - shift;
        }
        std::copy_n(variances + rich * per, per, variances + poor * per);
        model.weights[rich] = (model.weights[rich] + model.weights[poor]) / 2;
        model.weights[poor] = model.weights[rich];
        energy[rich] /= 2;
        energy[poor] = energy[rich];
        nreseed++;
    }
    if (nreseed > 0) {
        post_process(plan, model);
    }
    return nreseed;
}

} // namespace faiss_flash
