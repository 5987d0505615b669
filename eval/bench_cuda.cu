// flash_bench_cuda: k-means on a CUDA device, stage by stage.
//
// For each shape: one Lloyd iteration on the device (centroid preparation,
// assignment with its re-check, update) by CUDA events, medians after
// warm-up, and the labels checked in double precision on the device.

#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <faiss_flash/engine/engine.h>
#include <faiss/IndexFlat.h>

#include <eval/faiss_gpu_kmeans.h>
#include <eval/median.h>
#include <faiss_flash/FlashClustering.h>
#include <eval/cuda_bench.cuh>
#include <faiss_flash/cuda/workspace.cuh>

using namespace faiss_flash;
using nlohmann::json;

namespace {

/// Counts rows whose label is worse than the best in double precision by
/// more than 2⁻²²·(‖x‖² + ‖c‖²). One warp a row.
__global__ void check_kernel(
        int64_t n,
        int64_t stride,
        int k,
        int d,
        const float* x,
        const float* c,
        const uint32_t* labels,
        unsigned long long* wrong) {
    const int64_t row =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32 * stride;
    if (row >= n) {
        return;
    }
    const int lane = threadIdx.x % 32;
    double best = INFINITY, chosen = 0, norms = 0;
    for (int j = lane; j < k; j += 32) {
        double dist = 0, sum = 0;
        for (int e = 0; e < d; e++) {
            const double a = x[row * d + e], b = c[(int64_t)j * d + e];
            dist += (a - b) * (a - b);
            sum += a * a + b * b;
        }
        best = fmin(best, dist);
        if (j == (int)labels[row]) {
            chosen = dist;
            norms = sum;
        }
    }
    for (int step = 16; step > 0; step /= 2) {
        best = fmin(best, __shfl_xor_sync(0xffffffff, best, step));
        chosen += __shfl_xor_sync(0xffffffff, chosen, step);
        norms += __shfl_xor_sync(0xffffffff, norms, step);
    }
    if (lane == 0 && chosen - best > 0x1p-22 * norms) {
        atomicAdd(wrong, 1ull);
    }
}

double once_ms(cudaStream_t stream, const std::function<void()>& work) {
    cudaEvent_t start, stop;
    FAISS_FLASH_CUDA_CHECK(cudaEventCreate(&start));
    FAISS_FLASH_CUDA_CHECK(cudaEventCreate(&stop));
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(start, stream));
    work();
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(stop, stream));
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(stop));
    float ms = 0;
    FAISS_FLASH_CUDA_CHECK(cudaEventElapsedTime(&ms, start, stop));
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    return ms;
}

double median_ms(
        int repeats,
        cudaStream_t stream,
        const std::function<void()>& work) {
    std::vector<double> ms;
    for (int i = -3; i < repeats; i++) {
        const double one = once_ms(stream, work);
        if (i >= 0) {
            ms.push_back(one);
        }
    }
    return median(ms);
}

/// c = Σ x / count, where there are any: the rest of a Lloyd iteration.
__global__ void new_means_kernel(
        int d,
        const double* sums,
        const double* counts,
        float* means) {
    const int64_t c = blockIdx.x;
    for (int j = threadIdx.x; j < d && counts[c] > 0; j += blockDim.x) {
        means[c * d + j] = sums[c * d + j] / counts[c];
    }
}

template <class T>
std::vector<T> fetch(const T* from, size_t count) {
    std::vector<T> to(count);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
}

json run_shape(
        const Shape& shape,
        const std::string& data,
        const std::vector<uint8_t>& sift,
        int repeats,
        int iterations,
        int capability) {
    const int64_t n = shape.n;
    const int k = shape.k, d = shape.d;
    size_t free_before = 0, total = 0;
    FAISS_FLASH_CUDA_CHECK(cudaMemGetInfo(&free_before, &total));
    const Stream own;
    const cudaStream_t stream = own.get();
    const DeviceArray<float> x = make_rows(data, sift, n, d, stream);
    const DeviceVectors vectors = {x.get(), VectorType::float32};

    const Model model = spread_model(shape, x.get());
    DeviceInfo device = device_info();
    device.capability = std::min(device.capability, capability);
    DeviceCentroids centroids(k, d, choose_shift(model), stream);
    DeviceRows rows(n, d, stream);
    DeviceArray<uint32_t> n_unproved(1, stream);
    ExactSums exact(n, k, d, stream);
    DeviceAccumulators accumulators(k, d, stream);
    const DeviceStatistics stats = accumulators.view();

    centroids.set(model, stream);
    const double prepare_ms = median_ms(repeats, stream, [&] {
        rows.prepare(n, vectors, centroids.shift(), stream);
    });
    auto assign = [&] {
        rows.assign(centroids, n_unproved.get(), device, stream);
    };
    auto update = [&] {
        accumulators.clear(stream);
        exact.add(
                0,
                n,
                vectors,
                rows.labels(),
                centroids.means(),
                true,
                stats,
                stream);
        exact.finish(centroids.means(), true, stats, stream);
        new_means_kernel<<<k, 128, 0, stream>>>(
                d, stats.sums, stats.counts, centroids.means());
    };
    exact.start(std::min(n, update_block_rows(k)), vectors, stream);
    auto iterate = [&] {
        centroids.prepare(stream);
        assign();
        update();
    };
    // as training meets them: the first iteration, and then the later ones,
    // each a little cheaper as fewer rows move
    std::vector<double> ms;
    for (int i = 0; i < iterations + repeats; i++) {
        ms.push_back(once_ms(stream, iterate));
    }
    const double first_ms = ms[0];
    const double iteration_ms = median({ms.begin() + iterations, ms.end()});
    const double kernel_ms = median_ms(repeats, stream, [&] {
        rows.assign_unchecked(
                centroids.prepared_for(rows.prepared().typical, stream),
                n_unproved.get(),
                device,
                stream);
    });
    // training goes on, for labels that move as they do
    std::vector<double> assign_times, update_times;
    for (int i = 0; i < repeats; i++) {
        centroids.prepare(stream);
        assign_times.push_back(once_ms(stream, assign));
        update_times.push_back(once_ms(stream, update));
    }
    const double assign_ms = median(assign_times);
    const double update_ms = median(update_times);
    // the labels of the last centroids, for the check below
    centroids.prepare(stream);
    assign();
    size_t free_after = 0;
    FAISS_FLASH_CUDA_CHECK(cudaMemGetInfo(&free_after, &total));

    const int64_t checked = std::min<int64_t>(
            n, std::max<int64_t>(1000, 4e11 / ((double)k * d)));
    const int64_t stride = n / checked;
    DeviceArray<unsigned long long> wrong(1, stream);
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            wrong.get(), 0, sizeof(unsigned long long), stream));
    check_kernel<<<(n / stride + 1) * 32 / 256 + 1, 256, 0, stream>>>(
            n,
            stride,
            k,
            d,
            x.get(),
            centroids.means(),
            rows.labels(),
            wrong.get());
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));

    const double unproved = fetch(n_unproved.get(), 1)[0];
    const double tflop = 2e-12 * n * k * d;
    json row = {
            {"data", data},
            {"n", n},
            {"k", k},
            {"d", d},
            {"prepare_ms", prepare_ms},
            {"assign_kernel_ms", kernel_ms},
            {"assign_ms", assign_ms},
            {"update_ms", update_ms},
            {"iteration_ms", iteration_ms},
            {"first_iteration_ms", first_ms},
            {"assign_tflops", tflop / kernel_ms * 1e3},
            {"rechecked", unproved / n},
            {"labels_checked", n / stride},
            {"wrong_labels", fetch(wrong.get(), 1)[0]},
            {"device_bytes", free_before - free_after}};
    fprintf(stderr,
            "%-5s %9lld %6d %4d | iteration %8.3f ms (first %7.3f) | assign "
            "%8.3f (kernel %8.3f, %5.0f TFLOP/s) | update %7.3f | prepare %7.3f | rechecked "
            "%5.2f %% | wrong %lld of %lld | %.0f MiB\n",
            data.c_str(),
            (long long)n,
            k,
            d,
            iteration_ms,
            first_ms,
            assign_ms,
            kernel_ms,
            tflop / kernel_ms * 1e3,
            update_ms,
            prepare_ms,
            100 * unproved / n,
            (long long)row["wrong_labels"],
            (long long)(n / stride),
            (double)row["device_bytes"] / (1 << 20));
    return row;
}

/// What streaming is bound by: copies from page-locked memory, and from
/// ordinary memory into it with all cores.
json run_copies() {
    const size_t bytes = size_t(1) << 30;
    const PinnedBuffer pinned(bytes);
    std::vector<char> ordinary(bytes, 1);
    const Stream own;
    DeviceArray<char> device(bytes, own.get());
    const double ms = median_ms(5, own.get(), [&] {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                device.get(),
                pinned.get(),
                bytes,
                cudaMemcpyHostToDevice,
                own.get()));
    });
    std::vector<double> seconds;
    for (int run = 0; run < 5; run++) {
        const auto start = std::chrono::steady_clock::now();
#pragma omp parallel for schedule(static)
        for (int i = 0; i < 1024; i++) {
            memcpy((char*)pinned.get() + i * (bytes / 1024),
                   ordinary.data() + i * (bytes / 1024),
                   bytes / 1024);
        }
        seconds.push_back(std::chrono::duration<double>(
                                  std::chrono::steady_clock::now() - start)
                                  .count());
    }
    const double device_rate = bytes / ms * 1e-6;
    const double host_rate = bytes / median(seconds) * 1e-9;
    fprintf(stderr,
            "copies: page-locked to device %.1f GB/s, ordinary to page-locked "
            "%.1f GB/s\n",
            device_rate,
            host_rate);
    return {{"copies", true},
            {"pinned_to_device_gb_per_s", device_rate},
            {"host_to_pinned_gb_per_s", host_rate}};
}

/// Others' k-means on the same shape, randn data, where they are installed.
json run_others(const Shape& shape, const std::string& flash_kmeans) {
    json row = {
            {"others", true}, {"n", shape.n}, {"k", shape.k}, {"d", shape.d}};
    const std::vector<float> x = make_host_rows(shape.n, shape.d);
    const double faiss_ms =
            faiss_gpu_iteration_ms(shape.n, shape.k, shape.d, x.data());
    if (faiss_ms >= 0) {
        row["faiss_gpu_iteration_ms"] = faiss_ms;
    }
    if (!flash_kmeans.empty()) {
        const std::string command = "python3 '" + flash_kmeans + "' " +
                std::to_string(shape.n) + " " + std::to_string(shape.k) + " " +
                std::to_string(shape.d);
        FILE* pipe = popen(command.c_str(), "r");
        FAISS_THROW_IF_NOT_FMT(pipe, "cannot run %s", command.c_str());
        std::string text;
        char buffer[256];
        while (fgets(buffer, sizeof(buffer), pipe)) {
            text += buffer;
        }
        FAISS_THROW_IF_NOT_FMT(
                pclose(pipe) == 0, "%s failed", command.c_str());
        row["flash_kmeans"] = json::parse(text);
    }
    fprintf(stderr, "others: %s\n", row.dump().c_str());
    return row;
}

/// FlashClustering::train from ordinary host memory, context created.
json run_training(const Shape& shape, int niter, double device_share) {
    const int64_t n = shape.n;
    const int k = shape.k, d = shape.d;
    const std::vector<float> x = make_host_rows(n, d);
    std::vector<double> seconds;
    double objective = 0, first_seconds = 0, pass_seconds = 0;
    for (int run = 0; run < 4; run++) {
        FlashClustering clustering(d, k);
        clustering.engine = "cuda";
        clustering.niter = niter;
        clustering.max_points_per_centroid = (n + k - 1) / k;
        clustering.engine_options.max_device_bytes =
                device_share * n * d * sizeof(float);
        faiss::IndexFlatL2 index(d);
        const auto start = std::chrono::steady_clock::now();
        clustering.train(n, x.data(), index);
        const double s = std::chrono::duration<double>(
                                 std::chrono::steady_clock::now() - start)
                                 .count();
        if (run > 0) { // the first one warms up
            seconds.push_back(s);
        }
        objective = clustering.iteration_stats.back().obj;
        first_seconds = clustering.iteration_stats[0].time;
        pass_seconds = (clustering.iteration_stats.back().time -
                        first_seconds) /
                (niter - 1);
    }
    std::sort(seconds.begin(), seconds.end());
    fprintf(stderr,
            "train %lld x %d, K = %d, %d iterations%s: %.3f s (first pass "
            "%.3f, others %.4f each)\n",
            (long long)n,
            d,
            k,
            niter,
            device_share > 0 ? ", streamed" : "",
            seconds[1],
            first_seconds,
            pass_seconds);
    return {{"training", true},
            {"n", n},
            {"k", k},
            {"d", d},
            {"niter", niter},
            {"max_device_bytes", device_share * n * d * sizeof(float)},
            {"seconds", seconds[1]},
            {"first_pass_seconds", first_seconds},
            {"pass_seconds", pass_seconds},
            {"objective", objective}};
}

} // namespace

int main(int argc, char** argv) {
    std::string json_path, sift_path, flash_kmeans;
    bool training = false, others = false;
    int repeats = 11, iterations = 10, capability = 1000;
    std::vector<std::string> shapes = {
            "1000000,1024,128",
            "1000000,4096,128",
            "8000000,1024,128",
            "10000000,1024,96",
            "1000000,65536,128",
            "1000000,65536,512",
            "1000000,1024,768",
            "262144,256,128"};
    CLI::App app{"Stages of a k-means iteration on the current CUDA device"};
    app.add_option("--json", json_path, "also write the rows to this file");
    app.add_option("--sift", sift_path, "raw 8-bit rows of 128 (real data)");
    app.add_option("--shape", shapes, "n,k,d (may be repeated)");
    app.add_option("--repeats", repeats, "timed runs, the median is kept");
    app.add_option("--iterations", iterations, "training before timing");
    app.add_option(
            "--capability",
            capability,
            "run the kernels of at most this compute capability (80, 90)");
    app.add_flag(
            "--others",
            others,
            "also time FAISS's k-means on the GPU, where this FAISS has it");
    app.add_option(
            "--flash-kmeans",
            flash_kmeans,
            "also run this script (eval/time_flash_kmeans.py) on each shape");
    app.add_flag(
            "--training",
            training,
            "also time whole trainings from host memory");
    CLI11_PARSE(app, argc, argv);

    try {
        const std::vector<uint8_t> sift = read_sift(sift_path);
        json rows = json::array();
        for (const std::string& text : shapes) {
            const Shape shape = parse_shape(text);
            rows.push_back(run_shape(
                    shape, "randn", sift, repeats, iterations, capability));
            if (!sift.empty() && shape.d == sift_dimension) {
                rows.push_back(run_shape(
                        shape,
                        "sift",
                        sift,
                        repeats,
                        iterations,
                        capability));
            }
        }
        for (const std::string& text : shapes) {
            if (others || !flash_kmeans.empty()) {
                rows.push_back(run_others(parse_shape(text), flash_kmeans));
            }
        }
        if (training) {
            rows.push_back(run_copies());
            rows.push_back(run_training({1000000, 1024, 128}, 25, 0));
            rows.push_back(run_training({8000000, 1024, 128}, 5, 0));
            rows.push_back(run_training({8000000, 1024, 128}, 5, 0.25));
        }
        write_results(json_path, {{"rows", rows}});
    } catch (const std::exception& e) {
        fprintf(stderr, "flash_bench_cuda: %s\n", e.what());
        return 2;
    }
    return 0;
}
