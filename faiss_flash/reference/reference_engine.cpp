// Every operation of an engine in double precision and plain loops: the
// oracle of the tests. One thread, no blocking, no approximation, nothing
// dropped.

#include <algorithm>
#include <cmath>
#include <numeric>

#include <faiss_flash/engine/chunks.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

namespace {

double squared_distance(const float* x, const float* c, size_t d) {
    double dist = 0;
    for (size_t j = 0; j < d; j++) {
        const double diff = (double)x[j] - c[j];
        dist += diff * diff;
    }
    return dist;
}

double inner_product(const float* x, const float* c, size_t d) {
    double dot = 0;
    for (size_t j = 0; j < d; j++) {
        dot += (double)x[j] * c[j];
    }
    return dot;
}

/// dist[c] = ‖x − c‖² or x·c, for all centroids
void distances(
        const Model& model,
        Metric metric,
        const float* x,
        std::vector<double>& dist) {
    dist.resize(model.k);
    for (size_t c = 0; c < model.k; c++) {
        const float* mean = model.means.data() + c * model.d;
        dist[c] = metric == Metric::l2 ? squared_distance(x, mean, model.d)
                                       : inner_product(x, mean, model.d);
    }
}

/// The m best centroids, best first, lowest number first among equals.
std::vector<size_t> best(
        const std::vector<double>& values,
        bool smallest,
        size_t m) {
    std::vector<size_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(
            order.begin(),
            order.begin() + m,
            order.end(),
            [&](size_t a, size_t b) {
                if (values[a] != values[b]) {
                    return smallest ? values[a] < values[b]
                                    : values[a] > values[b];
                }
                return a < b;
            });
    order.resize(m);
    return order;
}

/// energy[c·per + j]: (x_j − μ_cj)² of a diagonal model (per = d), their sum
/// ‖x − μ_c‖² of a spherical one (per = 1)
void energies(const Model& model, const float* x, std::vector<double>& energy) {
    const size_t per = model.variances_per_component();
    energy.assign(model.k * per, 0);
    for (size_t i = 0; i < model.k * model.d; i++) {
        const size_t c = i / model.d, j = i % model.d;
        const double diff = (double)x[j] - model.means[i];
        energy[c * per + j % per] += diff * diff;
    }
}

/// r[c] = p(c | x) for all components; returns log p(x).
double responsibilities_of(
        const Model& model,
        const std::vector<double>& scales,
        const std::vector<double>& energy,
        std::vector<double>& r) {
    const size_t per = model.variances_per_component();
    r = scales;
    for (size_t i = 0; i < energy.size(); i++) {
        r[i / per] -= energy[i] / (2.0 * model.variances[i]);
    }
    const double top = *std::max_element(r.begin(), r.end());
    double sum = 0;
    for (size_t c = 0; c < model.k; c++) {
        r[c] = std::exp(r[c] - top);
        sum += r[c];
    }
    for (size_t c = 0; c < model.k; c++) {
        r[c] /= sum;
    }
    return top + std::log(sum);
}

class ReferenceTrainingSet : public TrainingSet {
   public:
    explicit ReferenceTrainingSet(const VectorSource& source)
            : source_(source) {}

    void accumulate(const Model& model, Pass pass, Statistics& out) override {
        if (pass == Pass::soft) {
            accumulate_soft(model, out);
        } else {
            accumulate_hard(model, out);
        }
    }

   private:
    void accumulate_hard(const Model& model, Statistics& out) {
        out.reset(model.k, model.d);
        std::vector<double> dist;
        for_each_chunk(
                source_,
                4096,
                [&](size_t, size_t count, const float* x, const float* w) {
                    for (size_t i = 0; i < count; i++) {
                        const float* xi = x + i * model.d;
                        const double wi = w ? w[i] : 1.0;
                        distances(model, model.metric, xi, dist);
                        const bool l2 = model.metric == Metric::l2;
                        const size_t c = best(dist, l2, 1)[0];
                        add_vector(model, xi, c, wi, out);
                        out.energy[c] += wi *
                                squared_distance(xi,
                                                 model.means.data() +
                                                         c * model.d,
                                                 model.d);
                        out.members[c]++;
                        out.objective += dist[c];
                        out.total_weight += wi;
                        out.n++;
                    }
                });
    }

    void accumulate_soft(const Model& model, Statistics& out) {
        const size_t per = model.variances_per_component();
        out.reset(model.k, model.d, per);
        const std::vector<double> scales = log_scales(model);
        std::vector<double> energy, r;
        for_each_chunk(
                source_,
                4096,
                [&](size_t, size_t count, const float* x, const float* w) {
                    for (size_t i = 0; i < count; i++) {
                        const float* xi = x + i * model.d;
                        const double wi = w ? w[i] : 1.0;
                        energies(model, xi, energy);
                        out.log_likelihood += wi *
                                responsibilities_of(model, scales, energy, r);
                        for (size_t c = 0; c < model.k; c++) {
                            if (r[c] > 0) {
                                add_vector(model, xi, c, wi * r[c], out);
                            }
                        }
                        for (size_t e = 0; e < energy.size(); e++) {
                            if (r[e / per] > 0) {
                                out.energy[e] += wi * r[e / per] * energy[e];
                            }
                        }
                        out.members[best(r, false, 1)[0]]++;
                        out.total_weight += wi;
                        out.n++;
                    }
                });
    }

    static void add_vector(
            const Model& model,
            const float* x,
            size_t c,
            double weight,
            Statistics& out) {
        for (size_t j = 0; j < model.d; j++) {
            out.sums[c * model.d + j] += weight * x[j];
        }
        out.counts[c] += weight;
        out.entries++;
    }

    const VectorSource& source_;
};

class ReferenceEngine : public Engine {
   public:
    const char* name() const override {
        return "reference";
    }

    std::unique_ptr<TrainingSet> open(
            const VectorSource& source,
            const EngineOptions&) const override {
        return std::make_unique<ReferenceTrainingSet>(source);
    }

    void nearest(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* dist) const override {
        std::vector<double> all;
        for (size_t i = 0; i < n; i++) {
            distances(model, model.metric, x + i * model.d, all);
            const auto order = best(all, model.metric == Metric::l2, m);
            for (size_t j = 0; j < m; j++) {
                labels[i * m + j] = order[j];
                dist[i * m + j] = all[order[j]];
            }
        }
    }

    void responsibilities(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* resp,
            float* log_likelihood) const override {
        const std::vector<double> scales = log_scales(model);
        std::vector<double> energy, r;
        for (size_t i = 0; i < n; i++) {
            energies(model, x + i * model.d, energy);
            const double log_p = responsibilities_of(model, scales, energy, r);
            if (log_likelihood) {
                log_likelihood[i] = log_p;
            }
            const auto order = best(r, false, m);
            for (size_t j = 0; j < m; j++) {
                labels[i * m + j] = order[j];
                resp[i * m + j] = r[order[j]];
            }
        }
    }
};

} // namespace

const Engine& reference_engine() {
    static const ReferenceEngine engine;
    return engine;
}

} // namespace faiss_flash
