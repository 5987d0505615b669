#pragma once

// What the CUDA benchmarks share: their data, shapes and result files.

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/trainer/model.h>

namespace faiss_flash {

constexpr int sift_dimension = 128; ///< bytes of a row of --sift

struct Shape {
    int64_t n;
    int k, d;
};

inline Shape parse_shape(const std::string& text) {
    long long n;
    int k, d;
    FAISS_THROW_IF_NOT_FMT(
            sscanf(text.c_str(), "%lld,%d,%d", &n, &k, &d) == 3,
            "--shape %s is not n,k,d",
            text.c_str());
    return {n, k, d};
}

/// The bytes of --sift, none where no path was given.
inline std::vector<uint8_t> read_sift(const std::string& path) {
    std::vector<uint8_t> bytes;
    if (!path.empty()) {
        std::ifstream in(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(in), {});
        FAISS_THROW_IF_NOT_FMT(
                bytes.size() >= sift_dimension,
                "cannot read %s",
                path.c_str());
    }
    return bytes;
}

__device__ inline uint32_t mix(uint64_t z) {
    z = (z + 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z >> 32;
}

/// Standard normal values (Box–Muller on a counter hash).
static __global__ void randn_kernel(float* x, int64_t count, uint64_t seed) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        const float u = (mix(seed + 2 * i) + 1.0f) * 0x1p-32f;
        const float v = mix(seed + 2 * i + 1) * 0x1p-32f;
        x[i] = sqrtf(-2 * logf(u)) * cospif(2 * v);
    }
}

/// Rows of 8-bit integers (the first d of each), repeated as often as needed.
static __global__ void repeat_kernel(
        float* x,
        int64_t n,
        int d,
        const uint8_t* rows,
        int64_t n_rows) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * d;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / d;
        x[i] = rows[row % n_rows * sift_dimension + i % d];
    }
}

/// Vectors (n, d) on the device: "sift", rows of --sift, or "randn".
inline DeviceArray<float> make_rows(
        const std::string& data,
        const std::vector<uint8_t>& sift,
        int64_t n,
        int d,
        cudaStream_t stream) {
    DeviceArray<float> x((size_t)n * d, stream);
    if (data == "sift") {
        DeviceArray<uint8_t> rows(sift.size(), stream);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                rows.get(),
                sift.data(),
                sift.size(),
                cudaMemcpyHostToDevice,
                stream));
        repeat_kernel<<<2048, 256, 0, stream>>>(
                x.get(), n, d, rows.get(), sift.size() / sift_dimension);
    } else {
        randn_kernel<<<2048, 256, 0, stream>>>(x.get(), (int64_t)n * d, 1);
    }
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    return x;
}

/// The "randn" vectors in ordinary host memory.
inline std::vector<float> make_host_rows(int64_t n, int d) {
    const DeviceArray<float> made = make_rows("randn", {}, n, d, nullptr);
    std::vector<float> x((size_t)n * d);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            x.data(),
            made.get(),
            x.size() * sizeof(float),
            cudaMemcpyDeviceToHost));
    return x;
}

/// Rows of x, spread over all of them, as centroids.
inline Model spread_model(const Shape& shape, const float* x) {
    Model model;
    model.k = shape.k;
    model.d = shape.d;
    model.means.resize(model.k * model.d);
    for (int c = 0; c < shape.k; c++) {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
                model.means.data() + c * model.d,
                x + shape.n / shape.k * c * shape.d,
                shape.d * sizeof(float),
                cudaMemcpyDeviceToHost));
    }
    return model;
}

/// The results, with what they were measured on; nowhere if path is empty.
inline void write_results(const std::string& path, nlohmann::json results) {
    if (path.empty()) {
        return;
    }
    cudaDeviceProp properties;
    FAISS_FLASH_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    results["device"] = properties.name;
    results["cuda"] = CUDART_VERSION;
    std::ofstream(path) << results.dump(1) << "\n";
}

} // namespace faiss_flash
