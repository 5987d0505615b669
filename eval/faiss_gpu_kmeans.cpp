#include <eval/faiss_gpu_kmeans.h>

#if __has_include(<faiss/gpu/GpuIndexFlat.h>)

#include <chrono>

#include <faiss/Clustering.h>
#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>

double faiss_gpu_iteration_ms(int64_t n, int k, int d, const float* x) {
    faiss::gpu::StandardGpuResources resources;
    auto seconds = [&](int niter) {
        faiss::ClusteringParameters parameters;
        parameters.niter = niter;
        parameters.max_points_per_centroid = int((n + k - 1) / k);
        faiss::Clustering clustering(d, k, parameters);
        faiss::gpu::GpuIndexFlatL2 index(&resources, d);
        const auto start = std::chrono::steady_clock::now();
        clustering.train(n, x, index);
        return std::chrono::duration<double>(
                       std::chrono::steady_clock::now() - start)
                .count();
    };
    seconds(1); // warm-up
    const double one = seconds(1);
    return (seconds(4) - one) / 3 * 1e3;
}

#else

double faiss_gpu_iteration_ms(int64_t, int, int, const float*) {
    return -1;
}

#endif
