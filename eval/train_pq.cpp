#include <eval/train_pq.h>

#include <algorithm>
#include <vector>

#include <faiss/IndexFlat.h>

#include <datasets/progress.h>
#include <eval/stopwatch.h>
#include <faiss_flash/FlashClustering.h>

namespace faiss_flash {

namespace {

/// (rows, d): x − c_nearest for evenly spaced rows of x.
std::vector<float> residuals(
        const faiss::Index& quantizer,
        size_t n,
        const float* x,
        size_t rows) {
    const size_t d = static_cast<size_t>(quantizer.d);
    std::vector<float> sample(rows * d), result(rows * d);
    for (size_t i = 0; i < rows; i++) {
        const float* row = x + i * n / rows * d;
        std::copy(row, row + d, sample.begin() + i * d);
    }
    std::vector<idx_t> nearest(rows);
    quantizer.assign(rows, sample.data(), nearest.data());
    quantizer.compute_residual_n(
            rows, sample.data(), result.data(), nearest.data());
    return result;
}

} // namespace

TrainedPQ train_pq(
        const faiss::IndexIVFPQ& index,
        const TrainingOptions& options,
        size_t n,
        const float* x) {
    Stopwatch watch;
    TrainedPQ trained;
    trained.pq = index.pq;
    faiss::ProductQuantizer& pq = trained.pq;
    pq.cp.seed = options.seed;
    faiss::ClusteringParameters cp = pq.cp;
    cp.min_points_per_centroid = 1; // or FAISS warns M times about small sets
    const size_t rows = std::min(
            n, pq.ksub * static_cast<size_t>(pq.cp.max_points_per_centroid));
    const std::vector<float> sample = residuals(*index.quantizer, n, x, rows);

    ProgressBar progress("training PQ codes", static_cast<double>(pq.M));
    std::vector<float> slice(rows * pq.dsub);
    for (size_t m = 0; m < pq.M; m++) {
        for (size_t i = 0; i < rows; i++) {
            const float* from = sample.data() + i * pq.d + m * pq.dsub;
            std::copy(from, from + pq.dsub, slice.begin() + i * pq.dsub);
        }
        FlashClustering clustering(
                static_cast<int>(pq.dsub), static_cast<int>(pq.ksub), cp);
        clustering.engine = options.engine;
        faiss::IndexFlatL2 unused(pq.dsub);
        clustering.train(rows, slice.data(), unused);
        pq.set_params(clustering.centroids.data(), static_cast<int>(m));
        progress.update(static_cast<double>(m + 1));
    }
    trained.seconds = watch.seconds();
    return trained;
}

} // namespace faiss_flash
