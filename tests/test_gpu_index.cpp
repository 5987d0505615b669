// Indexes with copies on the GPU. Cases that need a device say so where
// there is none, and CTest then counts them as skipped.

#include <set>

#include <faiss/IndexHNSW.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/VectorTransform.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/impl/IDSelector.h>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/gpu/GpuIndexUnique.h>
#include <faiss_flash/gpu/gpu_cloner.h>
#include <tests/index_util.h>
#include <tests/no_device.h>

using namespace test;
using faiss_flash::AssignmentRule;
using faiss_flash::DeviceArray;
using faiss_flash::GpuIndexUnique;

namespace {

const size_t d = 32, n = 4000, nq = 200, nlist = 30;

struct Found {
    idx_t k;
    std::vector<float> dist;
    std::vector<idx_t> ids;
};

Found search_for(const faiss::Index& index, idx_t k) {
    const std::vector<float> x = clustered(nq, d, 7);
    Found found{k, std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
    index.search(nq, x.data(), k, found.dist.data(), found.ids.data());
    return found;
}

void check_unique_and_full(const Found& found) {
    size_t duplicates = 0, missing = 0;
    for (size_t q = 0; q < nq; q++) {
        std::set<idx_t> seen;
        for (idx_t j = 0; j < found.k; j++) {
            const idx_t id = found.ids[q * found.k + j];
            missing += id < 0;
            duplicates += id >= 0 && !seen.insert(id).second;
        }
    }
    CHECK(duplicates == 0);
    CHECK(missing == 0);
}

/// Distances agree to the GPU's rounding at every rank.
void check_same_distances(const Found& a, const Found& b) {
    double worst = 0;
    for (size_t i = 0; i < a.dist.size(); i++) {
        worst = std::max(
                worst,
                (double)std::abs(a.dist[i] - b.dist[i]) /
                        (1 + std::abs(b.dist[i])));
    }
    CHECK(worst < 1e-3);
}

Flash filled(Codec codec, faiss::MetricType metric, AssignmentRule rule) {
    auto* quantizer = new faiss::IndexFlat(d, metric);
    Flash flash = make_flash(codec, quantizer, nlist);
    flash->own_fields = true;
    flash->nprobe = 8;
    flash.options->policy.rule = rule;
    const std::vector<float> x = clustered(n, d, 5);
    flash->train(n, x.data());
    flash->add(n, x.data());
    return flash;
}

} // namespace

TEST_CASE("gpu: no duplicates and full results", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    for (const Codec codec : {Codec::flat, Codec::pq, Codec::sq8}) {
        for (const auto metric :
             {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
            for (const auto rule :
                 {AssignmentRule::nearest, AssignmentRule::top_m}) {
                INFO(name(codec) << ", metric " << (int)metric << ", rule "
                                 << faiss_flash::to_string(rule));
                const Flash flash = filled(codec, metric, rule);
                CHECK(*flash.has_copies == (rule == AssignmentRule::top_m));
                const std::unique_ptr<faiss::Index> gpu(
                        faiss_flash::index_cpu_to_gpu(
                                &resources, 0, flash.ivf.get()));
                CHECK(gpu->ntotal == (idx_t)n);
                for (const idx_t k : {1, 10, 100}) {
                    const Found found = search_for(*gpu, k);
                    check_unique_and_full(found);
                    // of residual codes the CPU reports the first copy it
                    // meets, the GPU the best one: test_gpu_index_search.cpp
                    if (codec == Codec::flat ||
                        rule == AssignmentRule::nearest) {
                        check_same_distances(found, search_for(*flash.ivf, k));
                    }
                }
            }
        }
    }
}

TEST_CASE("gpu: fewer vectors in the probed lists than k", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    const Flash flash =
            filled(Codec::flat, faiss::METRIC_L2, AssignmentRule::top_m);
    const std::unique_ptr<faiss::Index> gpu(
            faiss_flash::index_cpu_to_gpu(&resources, 0, flash.ivf.get()));
    faiss::SearchParametersIVF one;
    one.nprobe = 1;
    const idx_t k = 1000;
    const std::vector<float> x = clustered(nq, d, 7);
    std::vector<float> dist(nq * k), expected_dist(nq * k);
    std::vector<idx_t> ids(nq * k), expected(nq * k);
    gpu->search(nq, x.data(), k, dist.data(), ids.data(), &one);
    flash->search(nq, x.data(), k, expected_dist.data(), expected.data(), &one);
    CHECK(ids.back() == -1);
    size_t different = 0;
    for (size_t i = 0; i < ids.size(); i++) {
        different += (ids[i] < 0) != (expected[i] < 0);
        different += ids[i] < 0 && dist[i] != expected_dist[i];
    }
    CHECK(different == 0);
}

TEST_CASE("gpu: results in device memory are those in host memory", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    const Flash flash =
            filled(Codec::flat, faiss::METRIC_L2, AssignmentRule::top_m);
    const std::unique_ptr<faiss::Index> gpu(
            faiss_flash::index_cpu_to_gpu(&resources, 0, flash.ivf.get()));
    const idx_t k = 10;
    const Found expected = search_for(*gpu, k);
    const std::vector<float> x = clustered(nq, d, 7);
    DeviceArray<float> queries(x.size(), nullptr), dist(nq * k, nullptr);
    DeviceArray<idx_t> ids(nq * k, nullptr);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            queries.get(),
            x.data(),
            x.size() * sizeof(float),
            cudaMemcpyHostToDevice));
    gpu->search(nq, queries.get(), k, dist.get(), ids.get());
    // as with FAISS, work that is left in the resources' stream
    resources.getResources()->syncDefaultStream(0);
    std::vector<idx_t> found(nq * k);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            found.data(),
            ids.get(),
            found.size() * sizeof(idx_t),
            cudaMemcpyDeviceToHost));
    CHECK(found == expected.ids);
}

TEST_CASE("gpu: there and back without loss", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    for (const Codec codec : {Codec::flat, Codec::pq, Codec::sq8}) {
        INFO(name(codec));
        const Flash flash =
                filled(codec, faiss::METRIC_L2, AssignmentRule::top_m);
        const std::unique_ptr<faiss::Index> gpu(
                faiss_flash::index_cpu_to_gpu(&resources, 0, flash.ivf.get()));
        const std::unique_ptr<faiss::Index> back(
                faiss_flash::index_gpu_to_cpu(gpu.get()));
        auto* ivf = dynamic_cast<faiss::IndexIVF*>(back.get());
        auto* options = dynamic_cast<faiss_flash::FlashOptions*>(back.get());
        REQUIRE(ivf);
        REQUIRE(options);
        CHECK(options->policy.rule == AssignmentRule::top_m);
        CHECK(back->ntotal == flash->ntotal);
        ivf->nprobe = flash->nprobe;
        const Found found = search_for(*back, 10);
        const Found expected = search_for(*flash.ivf, 10);
        CHECK(found.ids == expected.ids);
        // it can be added to, and keeps all copies together
        const std::vector<float> x = clustered(10, d, 9);
        back->add(10, x.data());
        CHECK(back->ntotal == flash->ntotal + 10);
        faiss::IDSelectorRange all(0, n + 10);
        CHECK(back->remove_ids(all) == n + 10);
        CHECK(ivf->invlists->compute_ntotal() == 0);
    }
}

TEST_CASE("gpu: inside a transform, replicas and shards", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources first, second;
    Flash flash = filled(Codec::flat, faiss::METRIC_L2, AssignmentRule::top_m);
    const Found expected = search_for(*flash.ivf, 10);
    for (const bool shard : {false, true}) {
        INFO((shard ? "shards" : "replicas"));
        faiss::gpu::GpuMultipleClonerOptions options;
        options.shard = shard;
        // two on one device
        const std::unique_ptr<faiss::Index> gpus(
                faiss_flash::index_cpu_to_gpu_multiple(
                        {&first, &second}, {0, 0}, flash.ivf.get(), &options));
        const Found found = search_for(*gpus, 10);
        check_unique_and_full(found);
        check_same_distances(found, expected);
        const std::unique_ptr<faiss::Index> back(
                faiss_flash::index_gpu_to_cpu(gpus.get()));
        CHECK(back->ntotal == flash->ntotal);
        dynamic_cast<faiss::IndexIVF&>(*back).nprobe = flash->nprobe;
        check_same_distances(search_for(*back, 10), expected);
        options.shard_type = 4;
        if (shard) {
            CHECK_THROWS_WITH(
                    faiss_flash::index_cpu_to_gpu_multiple(
                            {&first}, {0}, flash.ivf.get(), &options),
                    Catch::Matchers::ContainsSubstring("shard_type = 4"));
        }
    }
    faiss::RandomRotationMatrix rotation(d, d);
    rotation.init(1);
    faiss::IndexPreTransform transform(&rotation, flash.ivf.get());
    const std::unique_ptr<faiss::Index> gpu(
            faiss_flash::index_cpu_to_gpu(&first, 0, &transform));
    const Found found = search_for(*gpu, 10);
    check_unique_and_full(found);
    check_same_distances(found, search_for(transform, 10));
}

TEST_CASE("gpu: what cannot be done says so", "[gpu]") {
    if (no_device()) {
        return;
    }
    using Catch::Matchers::ContainsSubstring;
    faiss::gpu::StandardGpuResources resources;
    const Flash flash =
            filled(Codec::flat, faiss::METRIC_L2, AssignmentRule::top_m);
    const std::unique_ptr<faiss::Index> gpu(
            faiss_flash::index_cpu_to_gpu(&resources, 0, flash.ivf.get()));
    CHECK_THROWS_WITH(search_for(*gpu, 2049), ContainsSubstring("k = 2049"));
    CHECK_THROWS_WITH(search_for(*gpu, 0), ContainsSubstring("k = 0"));
    const std::vector<float> x = clustered(1, d, 9);
    CHECK_THROWS_WITH(gpu->add(1, x.data()), ContainsSubstring("CPU"));
    CHECK_THROWS(gpu->reset());
    CHECK_THROWS(faiss_flash::index_cpu_to_gpu(&resources, 0, nullptr));

    auto search_with = [&](const faiss::SearchParameters& params) {
        std::vector<float> dist(3);
        std::vector<idx_t> ids(3);
        gpu->search(1, x.data(), 3, dist.data(), ids.data(), &params);
    };
    faiss::IDSelectorRange some(0, 10);
    faiss::SearchParametersIVF params;
    params.nprobe = 4;
    search_with(params);
    params.sel = &some;
    CHECK_THROWS_WITH(search_with(params), ContainsSubstring("selector"));
    params.sel = nullptr;
    params.max_codes = 5;
    CHECK_THROWS_WITH(search_with(params), ContainsSubstring("max_codes = 5"));
    params.max_codes = 0;
    params.nprobe = 0;
    CHECK_THROWS_WITH(search_with(params), ContainsSubstring("nprobe = 0"));
    CHECK_THROWS(search_with(faiss::SearchParameters()));

    faiss::IndexFlatL2 quantizer(d);
    faiss_flash::IndexIVFFlatFlash untrained(&quantizer, d, 4);
    CHECK_THROWS_WITH(
            faiss_flash::index_cpu_to_gpu(&resources, 0, &untrained),
            ContainsSubstring("not trained"));
    Flash pq = filled(Codec::pq, faiss::METRIC_L2, AssignmentRule::top_m);
    dynamic_cast<faiss::IndexIVFPQ&>(*pq.ivf).polysemous_ht = 3;
    CHECK_THROWS_WITH(
            faiss_flash::index_cpu_to_gpu(&resources, 0, pq.ivf.get()),
            ContainsSubstring("polysemous_ht = 3"));
}

TEST_CASE("gpu: a quantizer that stays on the CPU", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    auto* graph = new faiss::IndexHNSWFlat(d, 16);
    faiss_flash::IndexIVFFlatFlash index(graph, d, nlist);
    index.own_fields = true;
    index.quantizer_trains_alone = 2;
    index.nprobe = 8;
    index.policy = faiss_flash::AssignmentPolicy::top_m(2);
    train_briefly(index);
    const std::vector<float> x = clustered(n, d, 5);
    index.train(n, x.data());
    index.add(n, x.data());
    CHECK_THROWS(faiss_flash::index_cpu_to_gpu(&resources, 0, &index));
    faiss::gpu::GpuClonerOptions options;
    options.allowCpuCoarseQuantizer = true;
    const std::unique_ptr<faiss::Index> gpu(
            faiss_flash::index_cpu_to_gpu(&resources, 0, &index, &options));
    const Found found = search_for(*gpu, 10);
    check_unique_and_full(found);
    check_same_distances(found, search_for(index, 10));
    const std::unique_ptr<faiss::Index> back(
            faiss_flash::index_gpu_to_cpu(gpu.get()));
    CHECK(search_for(*back, 10).ids == search_for(index, 10).ids);
}

TEST_CASE("gpu: replicas and shards on two devices", "[gpu]") {
    if (no_device()) {
        return;
    }
    if (faiss::gpu::getNumDevices() < 2) {
        std::puts("SKIPPED: one CUDA device only");
        return;
    }
    faiss::gpu::StandardGpuResources first, second;
    for (const Codec codec : {Codec::flat, Codec::pq, Codec::sq8}) {
        const Flash flash =
                filled(codec, faiss::METRIC_L2, AssignmentRule::top_m);
        const std::unique_ptr<faiss::Index> one(
                faiss_flash::index_cpu_to_gpu(&first, 0, flash.ivf.get()));
        const Found expected = search_for(*one, 10);
        for (const bool shard : {false, true}) {
            INFO(name(codec) << (shard ? ", shards" : ", replicas"));
            faiss::gpu::GpuMultipleClonerOptions options;
            options.shard = shard;
            const std::unique_ptr<faiss::Index> gpus(
                    faiss_flash::index_cpu_to_gpu_multiple(
                            {&first, &second},
                            {0, 1},
                            flash.ivf.get(),
                            &options));
            for (int run = 0; run < 3; run++) {
                const Found found = search_for(*gpus, 10);
                check_unique_and_full(found);
                CHECK(found.dist == expected.dist);
                // codes may be equal, and IndexShards orders ties otherwise
                if (codec == Codec::flat || !shard) {
                    CHECK(found.ids == expected.ids);
                }
            }
            const std::unique_ptr<faiss::Index> back(
                    faiss_flash::index_gpu_to_cpu(gpus.get()));
            CHECK(back->ntotal == flash->ntotal);
            dynamic_cast<faiss::IndexIVF&>(*back).nprobe = flash->nprobe;
            check_same_distances(
                    search_for(*back, 10), search_for(*flash.ivf, 10));
        }
    }
    // the second device alone, called while the first one is current
    const Flash flash =
            filled(Codec::flat, faiss::METRIC_L2, AssignmentRule::top_m);
    const std::unique_ptr<faiss::Index> gpu(
            faiss_flash::index_cpu_to_gpu(&second, 1, flash.ivf.get()));
    CHECK(dynamic_cast<GpuIndexUnique&>(*gpu).getDevice() == 1);
    check_same_distances(search_for(*gpu, 10), search_for(*flash.ivf, 10));
    // queries and results in the other device's memory
    const std::vector<float> x = clustered(nq, d, 7);
    const size_t x_bytes = x.size() * sizeof(float);
    const size_t dist_bytes = nq * 10 * sizeof(float);
    const size_t ids_bytes = nq * 10 * sizeof(idx_t);
    char* memory = nullptr;
    FAISS_FLASH_CUDA_CHECK(
            cudaMalloc((void**)&memory, x_bytes + dist_bytes + ids_bytes));
    auto* x_dev = (float*)memory;
    auto* dist_dev = (float*)(memory + x_bytes);
    auto* ids_dev = (idx_t*)(memory + x_bytes + dist_bytes);
    FAISS_FLASH_CUDA_CHECK(
            cudaMemcpy(x_dev, x.data(), x_bytes, cudaMemcpyHostToDevice));
    gpu->search(nq, x_dev, 10, dist_dev, ids_dev);
    std::vector<idx_t> found(nq * 10);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            found.data(), ids_dev, ids_bytes, cudaMemcpyDeviceToHost));
    cudaFree(memory);
    CHECK(found == search_for(*gpu, 10).ids);
}
