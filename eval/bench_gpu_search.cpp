// flash_bench_gpu_search: what searching without duplicates costs on a GPU.
//
// The same lists with copies, once searched by FAISS's GPU index (which
// returns duplicates) and once by ours, at the same nprobe and k, in turn in
// one run; queries and results in host memory, and in device memory.

#include <cuda_runtime.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include <faiss/IndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <eval/median.h>
#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/cuda/device.h>
#include <faiss_flash/gpu/GpuIndexUnique.h>
#include <faiss_flash/gpu/gpu_cloner.h>

using nlohmann::json;
using namespace faiss_flash;

namespace {

double seconds(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    FAISS_FLASH_CUDA_CHECK(cudaDeviceSynchronize());
    return std::chrono::duration<double>(
                   std::chrono::steady_clock::now() - start)
            .count();
}

std::unique_ptr<faiss::IndexIVF> make_index(
        const std::string& codec,
        faiss::Index* quantizer,
        int d,
        int nlist) {
    auto with_options = [](auto index) {
        index->policy = AssignmentPolicy::top_m(2);
        return std::unique_ptr<faiss::IndexIVF>(std::move(index));
    };
    if (codec == "flat") {
        return with_options(
                std::make_unique<IndexIVFFlatFlash>(quantizer, d, nlist));
    }
    if (codec == "pq") {
        return with_options(
                std::make_unique<IndexIVFPQFlash>(quantizer, d, nlist, 32, 8));
    }
    return with_options(std::make_unique<IndexIVFScalarQuantizerFlash>(
            quantizer, d, nlist, faiss::ScalarQuantizer::QT_8bit));
}

/// Medians of searches with one index and the other in turn.
json compare(
        const faiss::Index& stock,
        const faiss::Index& unique,
        idx_t nq,
        idx_t k,
        const float* x,
        float* dist,
        idx_t* ids,
        int repeats) {
    std::vector<double> with, without;
    for (int run = -2; run < repeats; run++) {
        const double a = seconds([&] { stock.search(nq, x, k, dist, ids); });
        const double b = seconds([&] { unique.search(nq, x, k, dist, ids); });
        if (run >= 0) {
            without.push_back(a);
            with.push_back(b);
        }
    }
    return {{"stock_qps", nq / median(without)},
            {"unique_qps", nq / median(with)},
            {"cost", median(with) / median(without) - 1}};
}

} // namespace

int main(int argc, char** argv) {
    std::string sift_path, json_path;
    int nq = 10000, nlist = 1024, repeats = 15;
    CLI::App app{"Cost of searching without duplicates on a GPU"};
    app.add_option("--sift", sift_path, "raw 8-bit rows of 128")->required();
    app.add_option("--json", json_path, "also write the rows to this file");
    app.add_option("--queries", nq, "taken from the end of the rows");
    app.add_option("--nlist", nlist, "posting lists");
    app.add_option("--repeats", repeats, "timed runs, the median is kept");
    CLI11_PARSE(app, argc, argv);
    try {
        const int d = 128;
        std::ifstream in(sift_path, std::ios::binary);
        const std::vector<uint8_t> bytes(
                std::istreambuf_iterator<char>(in), {});
        const idx_t n = (idx_t)(bytes.size() / d) - nq;
        FAISS_THROW_IF_NOT_FMT(
                n >= nlist, "%s has too few rows", sift_path.c_str());
        const std::vector<float> x(bytes.begin(), bytes.end());
        const float* queries = x.data() + n * d;
        faiss::gpu::StandardGpuResources resources;
        json rows = json::array();
        for (const std::string codec : {"flat", "pq", "sq8"}) {
            faiss::IndexFlatL2 quantizer(d);
            const auto index = make_index(codec, &quantizer, d, nlist);
            index->train(n, x.data());
            index->add(n, x.data());
            const std::unique_ptr<faiss::Index> unique(
                    faiss_flash::index_cpu_to_gpu(&resources, 0, index.get()));
            faiss::Index& stock = *dynamic_cast<GpuIndexUnique&>(*unique).index;
            for (const int nprobe : {1, 8, 32}) {
                dynamic_cast<faiss::IndexIVFInterface&>(stock).nprobe = nprobe;
                for (const idx_t k : {10, 100}) {
                    std::vector<float> dist(nq * k);
                    std::vector<idx_t> ids(nq * k);
                    json row =
                            compare(stock,
                                    *unique,
                                    nq,
                                    k,
                                    queries,
                                    dist.data(),
                                    ids.data(),
                                    repeats);
                    DeviceArray<float> dq(nq * d, nullptr);
                    DeviceArray<float> dd(nq * k, nullptr);
                    DeviceArray<idx_t> di(nq * k, nullptr);
                    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
                            dq.get(),
                            queries,
                            nq * d * sizeof(float),
                            cudaMemcpyHostToDevice));
                    row["on_device"] =
                            compare(stock,
                                    *unique,
                                    nq,
                                    k,
                                    dq.get(),
                                    dd.get(),
                                    di.get(),
                                    repeats);
                    row["codec"] = codec;
                    row["nprobe"] = nprobe;
                    row["k"] = k;
                    printf("%-4s nprobe %2d k %3d | host: stock %9.0f, unique "
                           "%9.0f queries/s, cost %5.1f %% | device: stock "
                           "%9.0f, unique %9.0f, cost %5.1f %%\n",
                           codec.c_str(),
                           nprobe,
                           (int)k,
                           (double)row["stock_qps"],
                           (double)row["unique_qps"],
                           100 * (double)row["cost"],
                           (double)row["on_device"]["stock_qps"],
                           (double)row["on_device"]["unique_qps"],
                           100 * (double)row["on_device"]["cost"]);
                    rows.push_back(row);
                }
            }
        }
        if (!json_path.empty()) {
            cudaDeviceProp properties;
            FAISS_FLASH_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
            std::ofstream(json_path) << json{{"device", properties.name},
                                             {"cuda", CUDART_VERSION},
                                             {"n", n},
                                             {"queries", nq},
                                             {"nlist", nlist},
                                             {"rows", rows}}
                                                .dump(1)
                                     << "\n";
        }
    } catch (const std::exception& e) {
        fprintf(stderr, "flash_bench_gpu_search: %s\n", e.what());
        return 2;
    }
    return 0;
}
