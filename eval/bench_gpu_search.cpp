// flash_bench_gpu_search: what searching without duplicates costs on a GPU.
//
// The same lists with copies, once searched by FAISS's GPU index (which
// returns duplicates) and once by ours, at the same nprobe and k, in turn in
// one run; queries and results in host memory, and in device memory, in large
// and small batches.

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
#include <faiss/gpu/GpuCloner.h>
#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <eval/median.h>
#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/cuda/device.h>
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
        int nlist,
        int m) {
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
                std::make_unique<IndexIVFPQFlash>(quantizer, d, nlist, m, 8));
    }
    return with_options(std::make_unique<IndexIVFScalarQuantizerFlash>(
            quantizer, d, nlist, faiss::ScalarQuantizer::QT_8bit));
}

/// Device memory in use, in bytes.
size_t used_bytes() {
    size_t free = 0, total = 0;
    FAISS_FLASH_CUDA_CHECK(cudaDeviceSynchronize());
    FAISS_FLASH_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return total - free;
}

/// Queries and results of one batch, on the host or on the device.
struct Batch {
    const float* x; ///< (all, d)
    idx_t all, nq, k, d;
    float* dist;
    idx_t* ids;
};

/// Medians of searches with one index and the other in turn; every run takes
/// the next queries.
json compare(
        const faiss::Index& stock,
        const faiss::Index& unique,
        const Batch& b,
        int repeats) {
    std::vector<double> with, without;
    for (int run = -3; run < repeats; run++) {
        const idx_t first = (run + 3) * b.nq % (b.all - b.nq + 1);
        const float* x = b.x + first * b.d;
        const double one =
                seconds([&] { stock.search(b.nq, x, b.k, b.dist, b.ids); });
        const double other =
                seconds([&] { unique.search(b.nq, x, b.k, b.dist, b.ids); });
        if (run >= 0) {
            without.push_back(one);
            with.push_back(other);
        }
    }
    return {{"stock_qps", b.nq / median(without)},
            {"unique_qps", b.nq / median(with)},
            {"cost", median(with) / median(without) - 1}};
}

} // namespace

int main(int argc, char** argv) {
    std::string sift_path, json_path;
    int nq = 10000, nlist = 1024, repeats = 15, d = 128, m = 32;
    std::vector<idx_t> batches{1, 100, 10000}, ks{1, 10, 100};
    std::vector<int> nprobes{1, 8, 32};
    std::vector<std::string> codecs{"flat", "pq", "sq8"};
    CLI::App app{"Cost of searching without duplicates on a GPU"};
    app.add_option("--sift", sift_path, "raw 8-bit rows of 128")->required();
    app.add_option("--json", json_path, "also write the rows to this file");
    app.add_option("--queries", nq, "taken from the end of the rows");
    app.add_option("--nlist", nlist, "posting lists");
    app.add_option(
            "--repeats",
            repeats,
            "timed runs (10 times as many of small "
            "batches), the median is kept");
    app.add_option("--dimensions", d, "of the rows, the first so many");
    app.add_option("--pq", m, "subquantizers of the codec pq");
    app.add_option("--batch", batches, "queries per search, several");
    app.add_option("--nprobe", nprobes, "lists per query, several");
    app.add_option("--k", ks, "results per query, several");
    app.add_option("--codec", codecs, "flat, pq, sq8");
    CLI11_PARSE(app, argc, argv);
    try {
        FAISS_THROW_IF_NOT_FMT(
                d >= 1 && d <= 128, "%d dimensions should be 1 to 128", d);
        std::ifstream in(sift_path, std::ios::binary);
        const std::vector<uint8_t> bytes(
                std::istreambuf_iterator<char>(in), {});
        const idx_t rows_there = bytes.size() / 128, n = rows_there - nq;
        FAISS_THROW_IF_NOT_FMT(
                n >= nlist, "%s has too few rows", sift_path.c_str());
        for (const idx_t batch : batches) {
            FAISS_THROW_IF_NOT_FMT(
                    batch >= 1 && batch <= nq,
                    "batch = %d should be from 1 to %d, the queries",
                    (int)batch,
                    nq);
        }
        std::vector<float> x;
        for (idx_t i = 0; i < rows_there; i++) {
            const auto row = bytes.begin() + i * 128;
            x.insert(x.end(), row, row + d);
        }
        const float* queries = x.data() + n * d;
        faiss::gpu::StandardGpuResources resources;
        DeviceArray<float> queries_dev(nq * d, nullptr);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
                queries_dev.get(),
                queries,
                nq * d * sizeof(float),
                cudaMemcpyHostToDevice));
        // the context, the resources' memory
        faiss::gpu::GpuIndexFlat warm(&resources, d, faiss::METRIC_L2);
        warm.add(1000, x.data());
        json rows = json::array(), memory = json::array();
        for (const std::string& codec : codecs) {
            faiss::IndexFlatL2 quantizer(d);
            const auto index = make_index(codec, &quantizer, d, nlist, m);
            index->train(n, x.data());
            index->add(n, x.data());
            const size_t before = used_bytes();
            const std::unique_ptr<faiss::Index> unique(
                    faiss_flash::index_cpu_to_gpu(&resources, 0, index.get()));
            const size_t between = used_bytes();
            const std::unique_ptr<faiss::Index> stock(
                    faiss::gpu::index_cpu_to_gpu(&resources, 0, index.get()));
            const double stock_mib = (used_bytes() - between) / 1048576.0;
            const double unique_mib = (between - before) / 1048576.0;
            printf("%s: stock %.0f MiB of device memory, unique %.0f MiB\n",
                   codec.c_str(),
                   stock_mib,
                   unique_mib);
            memory.push_back(
                    {{"codec", codec},
                     {"stock_mib", stock_mib},
                     {"unique_mib", unique_mib}});
            for (const idx_t batch : batches) {
                for (const int nprobe : nprobes) {
                    for (const idx_t k : ks) {
                        for (faiss::Index* one : {stock.get(), unique.get()}) {
                            dynamic_cast<faiss::IndexIVFInterface&>(*one)
                                    .nprobe = nprobe;
                        }
                        std::vector<float> dist(batch * k);
                        std::vector<idx_t> ids(batch * k);
                        const int runs = batch < 1000 ? 10 * repeats : repeats;
                        json row =
                                compare(*stock,
                                        *unique,
                                        {queries,
                                         nq,
                                         batch,
                                         k,
                                         d,
                                         dist.data(),
                                         ids.data()},
                                        runs);
                        DeviceArray<float> dd(batch * k, nullptr);
                        DeviceArray<idx_t> di(batch * k, nullptr);
                        row["on_device"] =
                                compare(*stock,
                                        *unique,
                                        {queries_dev.get(),
                                         nq,
                                         batch,
                                         k,
                                         d,
                                         dd.get(),
                                         di.get()},
                                        runs);
                        row["codec"] = codec;
                        row["batch"] = batch;
                        row["nprobe"] = nprobe;
                        row["k"] = k;
                        const json& device = row["on_device"];
                        printf("%-4s batch %5d nprobe %2d k %3d | host: stock "
                               "%9.0f, unique %9.0f queries/s, cost %6.1f %% | "
                               "device: stock %9.0f, unique %9.0f, cost %6.1f "
                               "%%\n",
                               codec.c_str(),
                               (int)batch,
                               nprobe,
                               (int)k,
                               (double)row["stock_qps"],
                               (double)row["unique_qps"],
                               100 * (double)row["cost"],
                               (double)device["stock_qps"],
                               (double)device["unique_qps"],
                               100 * (double)device["cost"]);
                        rows.push_back(row);
                    }
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
                                             {"dimensions", d},
                                             {"pq", m},
                                             {"memory", memory},
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
