// The CUDA engine: k-means and mixture passes, and the m best centroids or
// components, on the current device. Large m, and on devices before Hopper the
// m best components of diagonal covariances, run on the CPU engine.

#include <memory>
#include <vector>

#include <faiss_flash/cuda/policies/assign_source.h>
#include <faiss_flash/cuda/policies/list_assigner.cuh>
#include <faiss_flash/cuda/training_set.cuh>

namespace faiss_flash {

namespace {

class CudaEngine : public Engine {
   public:
    const char* name() const override {
        return "cuda";
    }

    std::unique_ptr<TrainingSet> open(
            const VectorSource& source,
            const EngineOptions& options) const override {
        return std::make_unique<CudaTrainingSet>(source, options);
    }

    void nearest(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* dist) const override {
        if (n == 0 || !ListQuery::can(model, m, false)) {
            cpu_engine().nearest(model, n, x, m, labels, dist);
            return;
        }
        const auto source = array_source(n, model.d, x, nullptr);
        if (m > 1) {
            CudaTrainingSet(*source, EngineOptions())
                    .answer(model, {x, m, false, labels, dist, nullptr});
            return;
        }
        std::vector<uint32_t> found(n);
        CudaTrainingSet(*source, EngineOptions()).labels(model, found.data());
        const bool l2 = model.metric == Metric::l2;
#pragma omp parallel for
        for (int64_t i = 0; i < (int64_t)n; i++) {
            const float* xi = x + i * model.d;
            const float* c = model.means.data() + found[i] * model.d;
            double sum = 0;
            for (size_t j = 0; j < model.d; j++) {
                const double step = (double)xi[j] - c[j];
                sum += l2 ? step * step : (double)xi[j] * c[j];
            }
            labels[i] = found[i];
            dist[i] = sum;
        }
    }

    void responsibilities(
            const Model& model,
            size_t n,
            const float* x,
            size_t m,
            idx_t* labels,
            float* responsibilities,
            float* log_likelihood) const override {
        if (n == 0 || !ListQuery::can(model, m, true)) {
            cpu_engine().responsibilities(
                    model, n, x, m, labels, responsibilities, log_likelihood);
            return;
        }
        const auto source = array_source(n, model.d, x, nullptr);
        CudaTrainingSet(*source, EngineOptions())
                .answer(
                        model,
                        {x, m, true, labels, responsibilities, log_likelihood});
    }

    void assign(
            const AssignmentPolicy& policy,
            const Model& model,
            size_t n,
            const float* x,
            idx_t* lists) const override {
        if (n == 0 || !ListAssigner::can(policy, model)) {
            Engine::assign(policy, model, n, x, lists);
            return;
        }
        const auto source = array_source(n, model.d, x, nullptr);
        assign_source(policy, model, n, source.get(), {}, lists, nullptr);
    }
};

} // namespace

const Engine* cuda_engine() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        cudaGetLastError();
        return nullptr;
    }
    static const CudaEngine engine;
    return device_info().capability >= 80 ? &engine : nullptr;
}

} // namespace faiss_flash
