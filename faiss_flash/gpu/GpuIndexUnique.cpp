#include <faiss_flash/gpu/GpuIndexUnique.h>

#include <algorithm>
#include <cinttypes>
#include <limits>

#include <faiss/gpu/GpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/gpu/unique_results.h>

namespace faiss_flash {

GpuIndexUnique::GpuIndexUnique(
        std::unique_ptr<faiss::gpu::GpuIndex> index_in,
        int most_copies_in)
        : faiss::Index(index_in->d, index_in->metric_type),
          index(std::move(index_in)),
          most_copies(most_copies_in) {
    ntotal = index->ntotal;
    is_trained = index->is_trained;
}

namespace {

/// The part of a search that works on one block of queries.
void search_block(
        const GpuIndexUnique& self,
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params,
        cudaStream_t stream) {
    const idx_t fetched = k * self.most_copies;
    DeviceArray<float> found_distances(n * fetched, stream);
    DeviceArray<idx_t> found_labels(n * fetched, stream);
    DeviceArray<float> kept_distances(n * k, stream);
    DeviceArray<idx_t> kept_labels(n * k, stream);
    self.index->search(
            n, x, fetched, found_distances.get(), found_labels.get(), params);
    const float worst = std::numeric_limits<float>::max();
    FAISS_FLASH_CUDA_CHECK(first_of_each_id(
            n,
            fetched,
            k,
            found_distances.get(),
            found_labels.get(),
            self.metric_type == faiss::METRIC_INNER_PRODUCT ? -worst : worst,
            kept_distances.get(),
            kept_labels.get(),
            stream));
    // to the host or within the device: the pointers say which
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            distances,
            kept_distances.get(),
            n * k * sizeof(float),
            cudaMemcpyDefault,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            labels,
            kept_labels.get(),
            n * k * sizeof(idx_t),
            cudaMemcpyDefault,
            stream));
}

} // namespace

void GpuIndexUnique::search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    if (most_copies == 1) {
        index->search(n, x, k, distances, labels, params);
        return;
    }
    FAISS_THROW_IF_NOT_FMT(
            k >= 1 && k <= unique_results_max / most_copies,
            "search: k = %" PRId64
            " should be from 1 to %d: FAISS's GPU "
            "search gives up to %d results, and some vector has %d copies",
            (int64_t)k,
            unique_results_max / most_copies,
            unique_results_max,
            most_copies);
    const int device = index->getDevice();
    const faiss::gpu::DeviceScope scope(device);
    const cudaStream_t stream = index->getResources()->getDefaultStream(device);
    // about 256 MiB of results in flight
    const idx_t block = std::max<idx_t>(
            1, (idx_t(256) << 20) / (12 * k * (most_copies + 1)));
    for (idx_t i0 = 0; i0 < n; i0 += block) {
        search_block(
                *this,
                std::min(block, n - i0),
                x + i0 * d,
                k,
                distances + i0 * k,
                labels + i0 * k,
                params,
                stream);
    }
    // FAISS's GPU indexes, too, return when results on the host are there
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
}

void GpuIndexUnique::add(idx_t, const float*) {
    FAISS_THROW_MSG(
            "GpuIndexUnique::add: vectors are stored in several lists by the "
            "CPU index: add there, then clone to the GPU again");
}

void GpuIndexUnique::reset() {
    FAISS_THROW_MSG("GpuIndexUnique::reset: clone another index instead");
}

} // namespace faiss_flash
