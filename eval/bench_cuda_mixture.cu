// flash_bench_cuda_mixture: EM passes on a CUDA device, stage by stage.
//
// For each shape: k-means and EM iterations, then one EM pass by CUDA events
// (means and mixture prepared, all statistics on the device), medians after
// warm-up, and log p(x) compared with double precision.

#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <faiss/IndexFlat.h>

#include <eval/median.h>
#include <faiss_flash/GMMClustering.h>
#include <eval/cuda_bench.cuh>
#include <faiss_flash/cuda/mixture/pass.cuh>
#include <faiss_flash/trainer/update.h>

using namespace faiss_flash;
using nlohmann::json;

namespace {

/// |found − log p(x)| of sampled rows, log p in double precision. One warp a
/// row.
__global__ void check_kernel(
        int64_t n,
        int64_t stride,
        int k,
        int d,
        const float* x,
        const float* means,
        const ComponentTerms* components,
        const float* half_precisions, // or nullptr
        const double* found,
        double* worst) {
    const int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int64_t row = at * stride;
    if (row >= n) {
        return;
    }
    const int lane = threadIdx.x % 32;
    double top = -INFINITY, sum = 0;
    for (int c = lane; c < k; c += 32) {
        double dist = 0;
        for (int j = 0; j < d; j++) {
            const double s = (double)x[row * d + j] - means[(int64_t)c * d + j];
            dist += s * s *
                    (half_precisions ? half_precisions[(int64_t)c * d + j] : 1);
        }
        const double value =
                components[c].log_scale - components[c].precision * dist;
        if (value > top) {
            sum = sum * exp(top - value) + 1;
            top = value;
        } else if (value > -INFINITY) { // a weight of zero
            sum += exp(value - top);
        }
    }
    for (int step = 16; step > 0; step /= 2) {
        const double other_top = __shfl_xor_sync(0xffffffff, top, step);
        const double other_sum = __shfl_xor_sync(0xffffffff, sum, step);
        const double larger = fmax(top, other_top);
        sum = sum * exp(top - larger) + other_sum * exp(other_top - larger);
        top = larger;
    }
    if (lane == 0) {
        worst[at] = fabs(found[row] - (top + log(sum)));
    }
}

class Timer {
   public:
    Timer() {
        FAISS_FLASH_CUDA_CHECK(cudaEventCreate(&event));
    }
    Timer(Timer&& other) : event(other.event) {
        other.event = nullptr;
    }
    ~Timer() {
        if (event) {
            cudaEventDestroy(event);
        }
    }
    cudaEvent_t event;
};

json run_shape(
        const Shape& shape,
        const std::string& data,
        const std::vector<uint8_t>& sift,
        int repeats,
        int hard,
        int soft,
        double variance_scale,
        Covariance covariance,
        int capability) {
    const int64_t n = shape.n;
    const int k = shape.k, d = shape.d;
    const Stream own;
    const cudaStream_t stream = own.get();
    const DeviceArray<float> x = make_rows(data, sift, n, d, stream);
    Model model = spread_model(shape, x.get());

    DeviceInfo device = device_info();
    device.capability = std::min(device.capability, capability);
    DeviceCentroids means(k, d, choose_shift(model), stream);
    DeviceRows rows(n, d, stream);
    rows.prepare(
            n, {x.get(), VectorType::float32}, means.shift(), stream);
    const bool diagonal = is_diagonal(covariance);
    const size_t per = diagonal ? d : 1;
    MixturePass pass(n, n, k, d, diagonal, device.free_bytes / 4, stream);
    Statistics stats;
    stats.reset(k, d, per);

    // hard passes: a mixture so narrow that every row has one component
    TrainingPlan plan;
    plan.covariance = covariance;
    plan.variance_floor = GMMParameters().variance_floor;
    std::vector<double> floor(per, 1e-30);
    auto soft_pass = [&] {
        means.set(model, stream);
        pass.begin(model, stream);
        pass.add(0, rows, x.get(), nullptr, means, device, stream);
    };
    auto iterate = [&] {
        soft_pass();
        stats.reset(k, d, per);
        pass.fetch(stats, stream);
        update_mixture(plan, stats, 0, floor, model);
    };
    model.weights.assign(k, 1.0f / k);
    const double narrow = data == "sift" ? 1 : 1e-3;
    for (int i = 0; i < hard; i++) {
        model.variances.assign(k * per, narrow);
        model.weights.assign(k, 1.0f / k);
        iterate();
    }
    if (hard == 0) {
        model.variances.assign(k * per, narrow);
    }
    if (hard > 0) {
        stats.log_likelihood = 0;
        mixture_from_clusters(stats, model);
        if (diagonal) {
            model.make_diagonal();
            floor = variance_floor(plan, stats, model);
        }
    }
    for (float& v : model.variances) {
        v *= variance_scale;
    }
    std::vector<double> likelihoods;
    for (int i = 0; i < soft; i++) {
        iterate();
        likelihoods.push_back(stats.log_likelihood / n);
        fprintf(stderr,
                "  pass %d: log p %.6f, entries %.2f, wide %.4f\n",
                i,
                stats.log_likelihood / n,
                (double)stats.entries / n,
                (double)pass.wide_rows() / n);
    }

    std::vector<double> pass_ms, accumulate_ms;
    std::map<std::string, std::vector<double>> stages;
    std::vector<std::pair<std::string, Timer>> marks;
    for (int i = -3; i < repeats; i++) {
        Timer start, stop;
        const auto wall = std::chrono::steady_clock::now();
        FAISS_FLASH_CUDA_CHECK(cudaEventRecord(start.event, stream));
        soft_pass();
        FAISS_FLASH_CUDA_CHECK(cudaEventRecord(stop.event, stream));
        stats.reset(k, d, per);
        pass.fetch(stats, stream);
        const double seconds = std::chrono::duration<double>(
                                       std::chrono::steady_clock::now() - wall)
                                       .count();
        float ms;
        FAISS_FLASH_CUDA_CHECK(
                cudaEventElapsedTime(&ms, start.event, stop.event));
        if (i >= 0) {
            pass_ms.push_back(ms);
            accumulate_ms.push_back(seconds * 1e3);
        }
    }
    for (int i = -1; i < repeats; i++) {
        marks.clear();
        auto mark = [&](const char* name) {
            marks.emplace_back(name, Timer());
            FAISS_FLASH_CUDA_CHECK(
                    cudaEventRecord(marks.back().second.event, stream));
        };
        mark("start");
        pass.on_stage = mark;
        soft_pass();
        pass.on_stage = nullptr;
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
        std::map<std::string, double> sums;
        for (size_t m = 1; m < marks.size(); m++) {
            float ms;
            FAISS_FLASH_CUDA_CHECK(cudaEventElapsedTime(
                    &ms, marks[m - 1].second.event, marks[m].second.event));
            sums[marks[m].first] += ms;
        }
        for (const auto& s : sums) {
            if (i >= 0) {
                stages[s.first].push_back(s.second);
            }
        }
    }

    // log densities of the last part, against double precision
    DeviceMixture mixture(k, stream);
    DiagonalMixture diagonal_mixture(diagonal ? 1 : 0, k, d, stream);
    if (diagonal) {
        diagonal_mixture.set(model, stream);
    } else {
        mixture.set(model, stream);
    }
    const int64_t last = (n - 1) % pass.rows_at_once() + 1;
    const int64_t first = n - last;
    const int64_t checked = std::min<int64_t>(last, 20000);
    const int64_t stride = last / checked;
    const int64_t count = (last + stride - 1) / stride;
    DeviceArray<double> errors(count, stream);
    check_kernel<<<(count * 32 + 255) / 256, 256, 0, stream>>>(
            last,
            stride,
            k,
            d,
            x.get() + first * d,
            means.means(),
            diagonal ? diagonal_mixture.components() : mixture.components(),
            diagonal ? diagonal_mixture.half_precisions() : nullptr,
            pass.log_density(),
            errors.get());
    std::vector<double> host(count);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            host.data(),
            errors.get(),
            count * sizeof(double),
            cudaMemcpyDeviceToHost,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    const double worst = *std::max_element(host.begin(), host.end());

    json row = {
            {"data", data},
            {"n", n},
            {"k", k},
            {"d", d},
            {"covariance", to_string(covariance)},
            {"variance_scale", variance_scale},
            {"hard_passes", hard},
            {"soft_passes", soft},
            {"pass_ms", median(pass_ms)},
            {"accumulate_ms", median(accumulate_ms)},
            {"entries_per_vector", (double)stats.entries / n},
            {"wide_rows", (double)pass.wide_rows() / n},
            {"dropped_mass", stats.dropped_mass},
            {"log_likelihood", stats.log_likelihood / n},
            {"log_density_checked", count},
            {"log_density_error", worst}};
    fprintf(stderr,
            "%-5s %s %9lld %6d %4d x%g | EM pass %8.3f ms (with copies %8.3f) | "
            "entries %.2f, wide %.3f %% | log p error %.2e | dropped %.1e |",
            data.c_str(),
            to_string(covariance),
            (long long)n,
            k,
            d,
            variance_scale,
            median(pass_ms),
            median(accumulate_ms),
            (double)stats.entries / n,
            100.0 * pass.wide_rows() / n,
            worst,
            stats.dropped_mass);
    for (const auto& s : stages) {
        row["stages_ms"][s.first] = median(s.second);
        fprintf(stderr, " %s %.3f", s.first.c_str(), median(s.second));
    }
    fprintf(stderr, "\n");
    return row;
}

/// Milliseconds of a pass after the first, by when each was done; the median.
template <class Pass>
double pass_ms(const std::vector<Pass>& passes) {
    std::vector<double> ms;
    for (size_t i = 1; i < passes.size(); i++) {
        ms.push_back((passes[i].time - passes[i - 1].time) * 1e3);
    }
    return median(ms);
}

/// GMMClustering::train from ordinary host memory, context created and
/// page-locked memory there: medians of all runs but the first.
json run_training(const std::vector<uint8_t>& sift, int64_t n, int k) {
    const int d = sift_dimension;
    std::vector<float> x((size_t)n * d);
    for (int64_t i = 0; i < n * d; i++) {
        x[i] = sift[i % (sift.size() / d * d)];
    }
    std::vector<double> seconds, first_ms, hard_ms, soft_ms;
    double likelihood = 0;
    size_t passes = 0;
    for (int run = 0; run < 6; run++) {
        GMMClustering clustering(d, k);
        clustering.engine = "cuda";
        clustering.max_points_per_centroid = (n + k - 1) / k;
        clustering.gmm.em_tolerance = 0; // all passes
        faiss::IndexFlatL2 index(d);
        const auto start = std::chrono::steady_clock::now();
        clustering.train(n, x.data(), index);
        const std::chrono::duration<double> took =
                std::chrono::steady_clock::now() - start;
        likelihood = clustering.em_stats.back().log_likelihood;
        passes = clustering.em_stats.size();
        if (run > 0) {
            seconds.push_back(took.count());
            first_ms.push_back(clustering.iteration_stats[0].time * 1e3);
            hard_ms.push_back(pass_ms(clustering.iteration_stats));
            soft_ms.push_back(pass_ms(clustering.em_stats));
        }
    }
    fprintf(stderr,
            "train %lld x %d, K = %d, 10 + %zd passes: %.3f s; first pass done "
            "after %.1f ms, k-means passes %.2f ms, EM passes %.2f ms\n",
            (long long)n,
            d,
            k,
            passes,
            median(seconds),
            median(first_ms),
            median(hard_ms),
            median(soft_ms));
    return {{"training", true},
            {"n", n},
            {"k", k},
            {"d", d},
            {"soft_passes", passes},
            {"seconds", median(seconds)},
            {"first_pass_ms", median(first_ms)},
            {"hard_pass_ms", median(hard_ms)},
            {"soft_pass_ms", median(soft_ms)},
            {"log_likelihood", likelihood}};
}

} // namespace

int main(int argc, char** argv) {
    std::string json_path, sift_path, covariance = "spherical";
    bool training = false;
    int repeats = 11, hard = 10, soft = 5, capability = 1000;
    double wide = 0;
    std::vector<std::string> shapes = {
            "1000000,1024,128", "1000000,4096,128", "10000000,1024,96"};
    CLI::App app{"Stages of an EM pass on the current CUDA device"};
    app.add_option("--json", json_path, "also write the rows to this file");
    app.add_option("--sift", sift_path, "raw 8-bit rows of 128 (real data)");
    app.add_option("--shape", shapes, "n,k,d (may be repeated)");
    app.add_option("--repeats", repeats, "timed runs, the median is kept");
    app.add_option("--hard", hard, "k-means iterations before EM");
    app.add_option("--soft", soft, "EM iterations before timing");
    app.add_option(
            "--wide",
            wide,
            "also time randn with variances this many times too wide");
    app.add_option(
            "--covariance",
            covariance,
            "spherical, tied_spherical, diag or tied_diag");
    app.add_option(
            "--capability",
            capability,
            "run the kernels of at most this compute capability (80, 90)");
    app.add_flag(
            "--training",
            training,
            "also time a whole training from host memory");
    CLI11_PARSE(app, argc, argv);

    try {
        const std::vector<uint8_t> sift = read_sift(sift_path);
        json rows = json::array();
        for (const std::string& text : shapes) {
            const Shape shape = parse_shape(text);
            auto run = [&](const char* data, double scale, int soft_passes) {
                rows.push_back(run_shape(
                        shape,
                        data,
                        sift,
                        repeats,
                        hard,
                        soft_passes,
                        scale,
                        covariance_by_name(covariance),
                        capability));
            };
            if (!sift.empty() && shape.d <= sift_dimension) {
                run("sift", 1, soft);
            }
            run("randn", 1, soft);
            if (wide > 0) {
                run("randn", wide, 0);
            }
        }
        if (training && !sift.empty()) {
            rows.push_back(run_training(sift, 1000000, 1024));
        }
        write_results(json_path, {{"rows", rows}});
    } catch (const std::exception& e) {
        fprintf(stderr, "flash_bench_cuda_mixture: %s\n", e.what());
        return 2;
    }
    return 0;
}
