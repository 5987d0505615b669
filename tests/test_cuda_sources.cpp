// Where the CUDA engine's vectors come from: device memory of every type,
// mapped files; and what it keeps between passes. Cases that need a device
// say so where there is none, and CTest then counts them as skipped.

#include <cstdio>

#include <faiss/IndexFlat.h>

#include <datasets/mapped_file.h>
#include <faiss_flash/FlashClustering.h>
#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/engine/engine.h>
#include <tests/cuda_util.h>
#include <tests/device_rows.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::EngineOptions;
using faiss_flash::FlashClustering;
using faiss_flash::Model;
using faiss_flash::Pass;
using faiss_flash::Statistics;

namespace {

TEST_CASE("cuda: kernels by device and dimension", "[cuda]") {
    using faiss_flash::AssignKernel;
    using faiss_flash::choose_assign_kernel;
    for (const int d : {8, 128, 136, 1536}) {
        // wgmma exists on Hopper alone
        for (const int capability : {80, 86, 89, 100, 120}) {
            CHECK(choose_assign_kernel(capability, d) == AssignKernel::sm80);
        }
    }
    CHECK(choose_assign_kernel(90, 8) == AssignKernel::sm90);
    CHECK(choose_assign_kernel(90, 128) == AssignKernel::sm90);
    CHECK(choose_assign_kernel(90, 136) == AssignKernel::sm90_deep);
}

struct Trained {
    std::vector<float> centroids;
    double objective;
    bool operator==(const Trained& other) const {
        return centroids == other.centroids && objective == other.objective;
    }
};

template <class Train>
Trained trained(size_t d, Train&& train, size_t max_device_bytes = 0) {
    FlashClustering clustering((int)d, 50);
    clustering.engine = "cuda";
    clustering.niter = 8;
    clustering.engine_options.max_device_bytes = max_device_bytes;
    faiss::IndexFlatL2 index(d);
    train(clustering, index);
    return {clustering.centroids, clustering.iteration_stats.back().obj};
}

} // namespace

TEST_CASE("cuda: vectors on the device, of every type", "[cuda]") {
    if (no_device()) {
        return;
    }
    // 50 · 256 rows are used: all of the first, a subsample of the second
    for (const size_t n : {9000, 20000}) {
        const Rows rows = whole(real_rows(n));
        const std::vector<float> weights(n, 2.0f);
        for (const float* w : {(const float*)nullptr, weights.data()}) {
            const Trained expected = trained(rows.d, [&](auto& c, auto& index) {
                c.train(n, rows.x.data(), index, w);
            });
            for (const VectorType type : all_vector_types) {
                INFO("n = " << n << ", type " << (int)type << ", weighted "
                            << (w != nullptr));
                const auto device = on_device(rows, type);
                CHECK(trained(rows.d, [&](auto& c, auto& index) {
                          c.train_device(n, device.get(), type, index, w);
                      }) == expected);
            }
        }
    }
}

TEST_CASE("cuda: device vectors that cannot be used", "[cuda]") {
    if (no_device()) {
        return;
    }
    using Catch::Matchers::ContainsSubstring;
    Rows rows = whole(real_rows(1000));
    FlashClustering clustering((int)rows.d, 10);
    faiss::IndexFlatL2 index(rows.d);
    CHECK_THROWS_WITH(
            clustering.train_device(
                    rows.n, rows.x.data(), VectorType::float32, index),
            ContainsSubstring("should be memory of CUDA device"));
    rows.x[123 * rows.d + 4] = NAN;
    const auto device = on_device(rows, VectorType::float16);
    CHECK_THROWS_WITH(
            clustering.train_device(
                    rows.n, device.get(), VectorType::float16, index),
            ContainsSubstring("vector 123 contains NaN"));
    CHECK(index.ntotal == 0);
}

TEST_CASE("cuda: the CPU engine reads vectors on the device", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Rows rows = whole(real_rows(3000));
    const auto device = on_device(rows, VectorType::uint8);
    std::vector<float> centroids[2];
    for (const bool from_device : {false, true}) {
        FlashClustering clustering((int)rows.d, 20);
        clustering.engine = "cpu";
        faiss::IndexFlatL2 index(rows.d);
        if (from_device) {
            clustering.train_device(
                    rows.n, device.get(), VectorType::uint8, index);
        } else {
            clustering.train(rows.n, rows.x.data(), index);
        }
        centroids[from_device] = clustering.centroids;
    }
    CHECK(centroids[0] == centroids[1]);
}

TEST_CASE("cuda: a mapped file is a source like any other", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Rows rows = real_rows(9000);
    const std::string path =
            "/tmp/faiss_flash_mapped." + std::to_string(getpid());
    FILE* file = fopen(path.c_str(), "wb");
    REQUIRE(file);
    fwrite(rows.x.data(), sizeof(float), rows.x.size(), file);
    REQUIRE(fclose(file) == 0);
    const faiss_flash::MappedFile mapped(path);
    std::remove(path.c_str());
    const auto* floats = reinterpret_cast<const float*>(
            mapped.bytes(0, rows.x.size() * sizeof(float)));
    auto train = [&](const float* x) {
        return trained(rows.d, [&](auto& c, auto& index) {
            c.train(rows.n, x, index);
        });
    };
    CHECK(train(floats) == train(rows.x.data()));
}

TEST_CASE("cuda: statistics do not depend on the passes before", "[cuda]") {
    if (no_device()) {
        return;
    }
    // several blocks of rows, so that streaming has something to cut
    const Rows x = normal_rows(300000, 24, 5);
    const auto source = array_source(x.n, x.d, x.x.data(), nullptr);
    std::vector<Model> models;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        models.push_back(centroid_model(normal_rows(33, x.d, seed)));
    }
    std::vector<Statistics> fresh(models.size());
    for (size_t m = 0; m < models.size(); m++) {
        cuda_engine()->open(*source)->accumulate(
                models[m], Pass::hard, fresh[m]);
    }
    for (const size_t bytes : {size_t(0), size_t(60) << 20}) {
        EngineOptions options;
        options.max_device_bytes = bytes;
        const auto set = cuda_engine()->open(*source, options);
        for (const size_t m : {0, 1, 2, 1, 3, 0}) {
            Statistics stats;
            set->accumulate(models[m], Pass::hard, stats);
            CHECK(same_bytes(stats, fresh[m]));
        }
    }
}
