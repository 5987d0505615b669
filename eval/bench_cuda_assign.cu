// flash_bench_cuda_assign: assignment policies on a CUDA device.
//
// For each shape and policy: vectors in device memory, stage by stage by CUDA
// events with the memory that it takes allocated before; the public call, all
// allocations included; and from ordinary host memory, beside what copying
// the vectors takes. Some rows' lists are compared with the reference
// engine's.

#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <faiss/IndexFlat.h>

#include <eval/cuda_bench.cuh>
#include <eval/median.h>
#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/GMMClustering.h>
#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/policies/list_assigner.cuh>
#include <faiss_flash/engine/engine.h>

using namespace faiss_flash;
using nlohmann::json;

namespace {

struct NamedPolicy {
    const char* name;
    AssignmentPolicy policy;
    bool diagonal = false; ///< covariances of the mixture
};

std::vector<NamedPolicy> policies() {
    return {{"nearest", AssignmentPolicy::nearest()},
            {"top-2", AssignmentPolicy::top_m(2)},
            {"top-8", AssignmentPolicy::top_m(8)},
            {"responsibility, tau = 1/K", AssignmentPolicy::responsibility()},
            {"AIR", AssignmentPolicy::air()},
            {"SOAR", AssignmentPolicy::soar()},
            {"closure, 10 %", AssignmentPolicy::closure(0.1)},
            {"responsibility > 1 %, up to 8",
             AssignmentPolicy::responsibility(0.01, 8)},
            {"diagonal, tau = 1/K", AssignmentPolicy::responsibility(), true}};
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(
                   std::chrono::steady_clock::now() - start)
            .count();
}

/// Median of `repeats` runs after two more; milliseconds.
template <class Run>
double median_ms(int repeats, Run&& run) {
    std::vector<double> ms;
    for (int i = -2; i < repeats; i++) {
        const auto start = std::chrono::steady_clock::now();
        run();
        if (i >= 0) {
            ms.push_back(1e3 * seconds_since(start));
        }
    }
    return median(ms);
}

/// Events between stages, in the order of a stream.
class Stopwatch {
   public:
    explicit Stopwatch(cudaStream_t stream) : stream_(stream) {}
    ~Stopwatch() {
        for (auto& mark : marks_) {
            cudaEventDestroy(mark.second);
        }
    }
    void mark(const char* name) {
        marks_.emplace_back(name, nullptr);
        FAISS_FLASH_CUDA_CHECK(cudaEventCreate(&marks_.back().second));
        FAISS_FLASH_CUDA_CHECK(
                cudaEventRecord(marks_.back().second, stream_));
    }
    /// Milliseconds by stage, and in all; waits.
    std::map<std::string, double> stages() const {
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream_));
        std::map<std::string, double> found;
        for (size_t m = 1; m < marks_.size(); m++) {
            found[marks_[m].first] += between(m - 1, m);
        }
        found["total"] = between(0, marks_.size() - 1);
        return found;
    }

   private:
    double between(size_t a, size_t b) const {
        float ms = 0;
        FAISS_FLASH_CUDA_CHECK(cudaEventElapsedTime(
                &ms, marks_[a].second, marks_[b].second));
        return ms;
    }
    cudaStream_t stream_;
    std::vector<std::pair<std::string, cudaEvent_t>> marks_;
};

/// Vectors of one shape, in device memory, and mixtures of them.
struct Data {
    Shape shape;
    DeviceArray<float> x;
    Model spherical, diagonal;
};

Model train(const Shape& shape, const float* x, bool diagonal) {
    GMMClustering clustering(shape.d, shape.k);
    clustering.engine = "cuda";
    clustering.seed = 1;
    clustering.gmm.em_niter = 10;
    if (diagonal) {
        clustering.gmm.covariance = Covariance::diag;
    }
    faiss::IndexFlatL2 index(shape.d);
    clustering.train_device(shape.n, x, VectorType::float32, index);
    return clustering.model();
}

Data make_data(
        const std::string& name,
        const std::vector<uint8_t>& sift,
        const Shape& shape) {
    Data data{shape, make_rows(name, sift, shape.n, shape.d, nullptr), {}, {}};
    data.spherical = train(shape, data.x.get(), false);
    if (name != "randn") {
        // without structure every component has a share of every vector
        data.diagonal = train(shape, data.x.get(), true);
    }
    return data;
}

/// Lists of sampled rows that are not those of the reference engine.
json compare(
        const AssignmentPolicy& policy,
        const Data& data,
        const Model& model,
        const idx_t* lists,
        int64_t checked) {
    const int64_t n = data.shape.n;
    const size_t d = data.shape.d, limit = policy.list_limit();
    const int64_t stride = std::max<int64_t>(n / checked, 1);
    checked = std::min(checked, n);
    std::vector<float> x(checked * d);
    std::vector<idx_t> found(checked * limit), expected(checked * limit);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy2D(
            x.data(),
            d * sizeof(float),
            data.x.get(),
            stride * d * sizeof(float),
            d * sizeof(float),
            checked,
            cudaMemcpyDeviceToHost));
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy2D(
            found.data(),
            limit * sizeof(idx_t),
            lists,
            stride * limit * sizeof(idx_t),
            limit * sizeof(idx_t),
            checked,
            cudaMemcpyDeviceToHost));
    assign_lists(
            policy,
            reference_engine(),
            model,
            checked,
            x.data(),
            expected.data());
    int64_t different = 0, copies = 0;
    for (int64_t i = 0; i < checked; i++) {
        different += !std::equal(
                found.begin() + i * limit,
                found.begin() + (i + 1) * limit,
                expected.begin() + i * limit);
        for (size_t j = 0; j < limit; j++) {
            copies += found[i * limit + j] >= 0;
        }
    }
    return {{"rows_checked", checked},
            {"rows_different", different},
            {"copies_per_vector", (double)copies / checked}};
}

json run_policy(
        const NamedPolicy& named,
        const std::string& data_name,
        const Data& data,
        int repeats,
        int64_t checked,
        const std::vector<float>& host) {
    const AssignmentPolicy& policy = named.policy;
    const Model& model = named.diagonal ? data.diagonal : data.spherical;
    const int64_t n = data.shape.n;
    const int k = data.shape.k, d = data.shape.d;
    const Stream own;
    const cudaStream_t stream = own.get();
    DeviceArray<idx_t> lists((size_t)n * policy.list_limit(), stream);
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    json row = {
            {"policy", named.name},
            {"data", data_name},
            {"n", n},
            {"k", k},
            {"d", d}};
    const double call_ms = median_ms(repeats, [&] {
        assign_lists_device(
                policy,
                model,
                n,
                data.x.get(),
                VectorType::float32,
                lists.get(),
                stream);
    });
    row["device_call_ms"] = call_ms;
    row.update(compare(policy, data, model, lists.get(), checked));

    std::map<std::string, std::vector<double>> stages;
    {
        const DeviceInfo device = device_info();
        DeviceCentroids means(k, d, choose_shift(model), stream);
        means.set(model, stream);
        DeviceRows rows(n, d, stream);
        ListAssigner assigner(policy, model, n, device, stream);
        for (int i = -2; i < repeats; i++) {
            Stopwatch watch(stream);
            watch.mark("start");
            rows.prepare(
                    n,
                    {data.x.get(), VectorType::float32},
                    means.shift(),
                    stream);
            watch.mark("prepare");
            assigner.on_stage = [&](const char* name) { watch.mark(name); };
            assigner.begin(rows, data.x.get(), means, lists.get());
            assigner.finish();
            watch.mark("end");
            for (const auto& s : watch.stages()) {
                if (i >= 0) {
                    stages[s.first].push_back(s.second);
                }
            }
        }
        const ListAssigner::Open& open = assigner.open();
        row["open"] = {
                {"unshared", (double)open.unshared / n},
                {"unordered", (double)open.unordered / n},
                {"left", (double)open.left / n}};
    }
    for (const auto& s : stages) {
        row["stages_ms"][s.first] = median(s.second);
    }
    if (!host.empty()) {
        std::vector<idx_t> host_lists((size_t)n * policy.list_limit());
        row["host_ms"] = median_ms(2, [&] {
            assign_lists(
                    policy,
                    *cuda_engine(),
                    model,
                    n,
                    host.data(),
                    host_lists.data());
        });
    }
    fprintf(stderr,
            "%-5s %9lld %5d %4d %-26s | device %7.2f ms, call %7.2f |",
            data_name.c_str(),
            (long long)n,
            k,
            d,
            named.name,
            row["stages_ms"]["total"].get<double>(),
            call_ms);
    if (!host.empty()) {
        fprintf(stderr, " host %7.1f |", row["host_ms"].get<double>());
    }
    fprintf(stderr,
            " copies %.3f, %lld of %lld differ, open %.2f + %.2f + %.3f %% |",
            row["copies_per_vector"].get<double>(),
            (long long)row["rows_different"].get<int64_t>(),
            (long long)row["rows_checked"].get<int64_t>(),
            100 * row["open"]["unshared"].get<double>(),
            100 * row["open"]["unordered"].get<double>(),
            100 * row["open"]["left"].get<double>());
    for (const auto& s : stages) {
        fprintf(stderr, " %s %.2f", s.first.c_str(), median(s.second));
    }
    fprintf(stderr, "\n");
    return row;
}

/// What the bound is: the vectors, copied from page-locked memory.
double copy_ms(int64_t bytes) {
    const size_t piece = size_t(256) << 20;
    const PinnedBuffer from(piece);
    const DeviceArray<uint8_t> to(piece, nullptr);
    const double ms = median_ms(3, [&] {
        for (int64_t at = 0; at < bytes; at += piece) {
            FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                    to.get(),
                    from.get(),
                    std::min<int64_t>(piece, bytes - at),
                    cudaMemcpyHostToDevice,
                    nullptr));
        }
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(nullptr));
    });
    return ms;
}

} // namespace

int main(int argc, char** argv) {
    std::string json_path, sift_path, only;
    int repeats = 11;
    int64_t checked = 2000;
    bool from_host = false, randn = true;
    std::vector<std::string> shapes = {"10000000,1024,96"};
    CLI::App app{"Assignment policies on the current CUDA device"};
    app.add_option("--json", json_path, "also write the rows to this file");
    app.add_option("--sift", sift_path, "raw 8-bit rows of 128 (real data)");
    app.add_option("--shape", shapes, "n,k,d (may be repeated)");
    app.add_option("--repeats", repeats, "timed runs, the median is kept");
    app.add_option("--checked", checked, "rows compared with the reference");
    app.add_option("--policy", only, "only policies with this in their name");
    app.add_flag("--host", from_host, "also from host memory");
    app.add_flag("--randn,!--no-randn", randn, "random vectors, too");
    CLI11_PARSE(app, argc, argv);

    try {
        const std::vector<uint8_t> sift = read_sift(sift_path);
        json rows = json::array(), copies = json::array();
        for (const std::string& text : shapes) {
            const Shape shape = parse_shape(text);
            std::vector<std::string> names;
            if (!sift.empty() && shape.d <= sift_dimension) {
                names.push_back("sift");
            }
            if (randn) {
                names.push_back("randn");
            }
            for (const std::string& name : names) {
                const Data data = make_data(name, sift, shape);
                std::vector<float> host;
                if (from_host) {
                    host.resize((size_t)shape.n * shape.d);
                    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
                            host.data(),
                            data.x.get(),
                            host.size() * sizeof(float),
                            cudaMemcpyDeviceToHost));
                    const double ms = copy_ms(host.size() * sizeof(float));
                    fprintf(stderr, "copying the vectors: %.1f ms\n", ms);
                    copies.push_back(
                            {{"n", shape.n}, {"d", shape.d}, {"ms", ms}});
                }
                for (const NamedPolicy& named : policies()) {
                    const bool there = !named.diagonal || data.diagonal.k > 0;
                    if (there && std::string(named.name).find(only) !=
                        std::string::npos) {
                        rows.push_back(run_policy(
                                named, name, data, repeats, checked, host));
                    }
                }
            }
        }
        write_results(json_path, {{"rows", rows}, {"copies", copies}});
    } catch (const std::exception& e) {
        fprintf(stderr, "flash_bench_cuda_assign: %s\n", e.what());
        return 2;
    }
    return 0;
}
