#include <faiss_flash/gpu/GpuIndexUnique.h>

#include <algorithm>
#include <cinttypes>
#include <vector>

#include <faiss/IndexIVFPQ.h>
#include <faiss/gpu/GpuIndex.h>
#include <faiss/gpu/utils/DeviceUtils.h>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/gpu/device_lists.h>
#include <faiss_flash/gpu/order_probes.h>
#include <faiss_flash/gpu/scan_lists.h>
#include <faiss_flash/gpu/select_unique.h>

namespace faiss_flash {

using faiss::gpu::getDeviceForAddress;

GpuIndexUnique::GpuIndexUnique(
        faiss::gpu::GpuResourcesProvider* provider,
        int device,
        const faiss::IndexIVF& index,
        std::unique_ptr<faiss::Index> quantizer_in,
        std::unique_ptr<faiss::IndexIVF> cpu_part_in)
        : faiss::Index(index.d, index.metric_type),
          faiss::IndexIVFInterface(quantizer_in.get(), index.nlist),
          cpu_part(std::move(cpu_part_in)),
          resources_(provider->getResources()),
          device_(device) {
    own_fields = true;
    quantizer_in.release();
    FAISS_THROW_IF_NOT_FMT(
            metric_type == faiss::METRIC_L2 ||
                    metric_type == faiss::METRIC_INNER_PRODUCT,
            "metric %d should be L2 or inner product",
            (int)metric_type);
    ntotal = index.ntotal;
    is_trained = true;
    nprobe = index.nprobe;
    cp = index.cp;
    const faiss::gpu::DeviceScope scope(device_);
    resources_->initializeForDevice(device_);
    lists_ = std::make_unique<DeviceLists>(resources_, device_, index);
}

GpuIndexUnique::~GpuIndexUnique() = default;

idx_t GpuIndexUnique::ncopies() const {
    return lists_->entries();
}

void GpuIndexUnique::copy_lists_to(faiss::InvertedLists& lists) const {
    const faiss::gpu::DeviceScope scope(device_);
    lists_->copy_to(lists);
}

/*************************************************************
 * Search
 *************************************************************/

namespace {

/// Temporary memory of a block of queries, at most, and what is taken from the
/// device where the resources' own temporary memory is smaller.
constexpr size_t most_work_bytes = 512 << 20, least_work_bytes = 32 << 20;

/// Pieces of one allocation; without one it only counts.
class Pieces {
   public:
    explicit Pieces(void* memory = nullptr)
            : memory_(static_cast<char*>(memory)) {}

    template <class T>
    T* take(size_t count) {
        const size_t at = bytes;
        bytes += (count * sizeof(T) + 255) / 256 * 256;
        return memory_ ? reinterpret_cast<T*>(memory_ + at) : nullptr;
    }

    size_t bytes = 0;

   private:
    char* memory_;
};

/// To or from the host, within a device, or between two of them.
void copy(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    const int to_device = getDeviceForAddress(to);
    const int from_device = getDeviceForAddress(from);
    if (to_device >= 0 && from_device >= 0 && to_device != from_device) {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyPeerAsync(
                to, to_device, from, from_device, bytes, stream));
    } else {
        FAISS_FLASH_CUDA_CHECK(
                cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    }
}

/// Queries that share a tile: more of them pay where lists have that many.
/// 0: no tiles, every pair of query and list by itself. README.md has the
/// measurements.
int queries_per_tile(const ListsView& lists, idx_t n, size_t probes) {
    const double pairs_per_list = (double)n * probes / lists.nlist;
    if (scans_by_tables(lists)) {
        return pairs_per_list >= 16 ? 32 : 0;
    }
    return pairs_per_list >= 8 ? 32 : pairs_per_list >= 2.5 ? 8 : 0;
}

} // namespace

/// One block of queries, and the device memory for it.
struct GpuIndexUnique::Work {
    // what is searched
    idx_t n;
    idx_t k;
    size_t probes;
    int64_t stride; ///< candidates of a query at most
    int per_tile;
    const float* x;      ///< (n, d), anywhere
    const idx_t* assign; ///< (n, probes), anywhere, or nullptr
    const faiss::SearchParameters* quantizer_params;
    float* distances;                                      ///< (n, k), anywhere
    idx_t* labels;                                         ///< (n, k), anywhere
    bool x_here, assign_here, distances_here, labels_here; ///< on the device
    cudaStream_t stream;

    // device memory; where the caller's is used, nullptr
    float *queries, *list_distances, *scores, *best_distances;
    idx_t *found_lists, *best_labels;
    int *lists, *loads, *ranks, *order;
    uint32_t *places, *counts;
    uint64_t* begins;

    void lay_out(Pieces& pieces, size_t d, size_t nlist) {
        const size_t pairs = n * probes;
        queries = pieces.take<float>(x_here ? 0 : n * d);
        best_distances = pieces.take<float>(distances_here ? 0 : n * k);
        best_labels = pieces.take<idx_t>(labels_here ? 0 : n * k);
        found_lists = pieces.take<idx_t>(assign_here ? 0 : pairs);
        list_distances = pieces.take<float>(assign ? 0 : pairs);
        lists = pieces.take<int>(pairs);
        places = pieces.take<uint32_t>(pairs);
        counts = pieces.take<uint32_t>(n);
        scores = pieces.take<float>(n * stride);
        loads = pieces.take<int>(per_tile ? nlist : 0);
        begins = pieces.take<uint64_t>(per_tile ? nlist + 1 : 0);
        ranks = pieces.take<int>(per_tile ? pairs : 0);
        order = pieces.take<int>(per_tile ? pairs : 0);
    }
};

void GpuIndexUnique::search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    size_t probes = nprobe;
    const faiss::SearchParameters* quantizer_params = nullptr;
    if (params) {
        auto* ivf = dynamic_cast<const faiss::SearchParametersIVF*>(params);
        FAISS_THROW_IF_NOT_MSG(
                ivf, "search: params should be a SearchParametersIVF");
        FAISS_THROW_IF_NOT_MSG(!ivf->sel, "search: the GPU knows no selectors");
        FAISS_THROW_IF_NOT_FMT(
                ivf->max_codes == 0,
                "search: max_codes = %zd should be 0 on the GPU",
                ivf->max_codes);
        auto* pq = dynamic_cast<const faiss::IVFPQSearchParameters*>(params);
        FAISS_THROW_IF_NOT_FMT(
                !pq || pq->polysemous_ht == 0,
                "search: polysemous_ht = %d should be 0 on the GPU",
                pq->polysemous_ht);
        probes = ivf->nprobe;
        quantizer_params = ivf->quantizer_params;
    }
    search_lists(
            n,
            x,
            k,
            std::min(probes, nlist),
            nullptr,
            quantizer_params,
            distances,
            labels);
}

void GpuIndexUnique::search_preassigned(
        idx_t n,
        const float* x,
        idx_t k,
        const idx_t* assign,
        const float*,
        float* distances,
        idx_t* labels,
        bool store_pairs,
        const faiss::IVFSearchParameters* params,
        faiss::IndexIVFStats* stats) const {
    FAISS_THROW_IF_NOT_MSG(
            !store_pairs && !stats,
            "search_preassigned: the GPU has no store_pairs and no stats");
    FAISS_THROW_IF_NOT_MSG(
            !params || (!params->sel && params->max_codes == 0),
            "search_preassigned: the GPU knows no selectors and no max_codes");
    search_lists(
            n,
            x,
            k,
            params ? params->nprobe : nprobe,
            assign,
            nullptr,
            distances,
            labels);
}

void GpuIndexUnique::search_lists(
        idx_t n,
        const float* x,
        idx_t k,
        size_t probes,
        const idx_t* assign,
        const faiss::SearchParameters* quantizer_params,
        float* distances,
        idx_t* labels) const {
    FAISS_THROW_IF_NOT_FMT(
            k >= 1 && k <= select_unique_max,
            "search: k = %" PRId64 " should be from 1 to %d on the GPU",
            (int64_t)k,
            select_unique_max);
    FAISS_THROW_IF_NOT_FMT(
            probes >= 1, "search: nprobe = %zd should be at least 1", probes);
    if (n == 0) {
        return;
    }
    const faiss::gpu::DeviceScope scope(device_);
    // a caller's lists may repeat
    const int64_t most = assign ? probes * lists_->most_entries(1)
                                : lists_->most_entries(probes);
    FAISS_THROW_IF_NOT_FMT(
            most < INT32_MAX,
            "search: nprobe = %zd lists hold up to %" PRId64
            " entries, at most 2^31 - 2 can be searched",
            probes,
            most);
    Work work{};
    work.n = 1;
    work.k = k;
    work.probes = probes;
    work.stride = std::max<int64_t>(4, (most + 3) / 4 * 4);
    work.quantizer_params = quantizer_params;
    work.x_here = getDeviceForAddress(x) == device_;
    work.assign_here = assign && getDeviceForAddress(assign) == device_;
    work.distances_here = getDeviceForAddress(distances) == device_;
    work.labels_here = getDeviceForAddress(labels) == device_;
    work.stream = resources_->getDefaultStream(device_);

    // blocks of queries that fit into what FAISS keeps for such purposes,
    // beside its quantizer's own
    Pieces one;
    work.per_tile = 1; // as if there were tiles
    work.lay_out(one, d, 0);
    const size_t bytes = std::clamp(
            resources_->getTempMemoryAvailable(device_) / 2,
            least_work_bytes,
            most_work_bytes);
    const idx_t most_block = std::max<idx_t>(1, bytes / one.bytes);
    const idx_t blocks = (n + most_block - 1) / most_block;
    const idx_t block = (n + blocks - 1) / blocks; // all about equal
    for (idx_t i0 = 0; i0 < n; i0 += block) {
        work.n = std::min(block, n - i0);
        work.per_tile = queries_per_tile(lists_->view(), work.n, probes);
        work.x = x + i0 * d;
        work.assign = assign ? assign + i0 * probes : nullptr;
        work.distances = distances + i0 * k;
        work.labels = labels + i0 * k;
        search_block(work);
    }
    if (!work.distances_here || !work.labels_here) {
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(work.stream));
    }
}

void GpuIndexUnique::search_block(const Work& given) const {
    Work work = given;
    Pieces size;
    work.lay_out(size, d, nlist);
    faiss::gpu::GpuMemoryReservation memory =
            resources_->allocMemoryHandle(faiss::gpu::AllocRequest(
                    faiss::gpu::AllocType::Other,
                    device_,
                    faiss::gpu::MemorySpace::Temporary,
                    work.stream,
                    size.bytes));
    Pieces pieces(memory.get());
    work.lay_out(pieces, d, nlist);
    if (!work.x_here) {
        copy(work.queries, work.x, work.n * d * sizeof(float), work.stream);
    }
    const float* queries = work.x_here ? work.x : work.queries;
    find_lists(work);

    const ListsView& view = lists_->view();
    FAISS_FLASH_CUDA_CHECK(place_probes(
            view,
            work.n,
            (int)work.probes,
            work.stride,
            work.assign_here ? work.assign : work.found_lists,
            work.lists,
            work.places,
            work.counts,
            work.stream));
    ProbesView probes;
    probes.n = work.n;
    probes.nprobe = (int)work.probes;
    probes.stride = work.stride;
    probes.lists = work.lists;
    probes.places = work.places;
    probes.counts = work.counts;
    TilesView tiles;
    if (work.per_tile) {
        FAISS_FLASH_CUDA_CHECK(order_probes(
                view,
                probes,
                work.per_tile,
                work.loads,
                work.ranks,
                work.begins,
                work.order,
                work.stream));
        tiles.queries_per_tile = work.per_tile;
        tiles.order = work.order;
        tiles.begins = work.begins;
    }
    const bool inner_product = metric_type == faiss::METRIC_INNER_PRODUCT;
    FAISS_FLASH_CUDA_CHECK(scan_lists(
            view,
            probes,
            work.per_tile ? &tiles : nullptr,
            queries,
            inner_product,
            work.scores,
            work.stream));
    // as many as an id has on average, at most one per list
    const idx_t copies = std::min<idx_t>(
            work.probes, ntotal > 0 ? (ncopies() + ntotal - 1) / ntotal : 1);
    FAISS_FLASH_CUDA_CHECK(select_unique(
            view,
            probes,
            work.scores,
            (int)work.k,
            (int)std::max<idx_t>(1, copies),
            inner_product,
            work.distances_here ? work.distances : work.best_distances,
            work.labels_here ? work.labels : work.best_labels,
            work.stream));
    if (!work.distances_here) {
        copy(work.distances,
             work.best_distances,
             work.n * work.k * sizeof(float),
             work.stream);
    }
    if (!work.labels_here) {
        copy(work.labels,
             work.best_labels,
             work.n * work.k * sizeof(idx_t),
             work.stream);
    }
}

/// The lists of each query, on the device.
void GpuIndexUnique::find_lists(const Work& work) const {
    const size_t pairs = work.n * work.probes;
    if (work.assign) {
        if (!work.assign_here) {
            copy(work.found_lists,
                 work.assign,
                 pairs * sizeof(idx_t),
                 work.stream);
        }
        return;
    }
    if (faiss::gpu::isGpuIndex(quantizer)) {
        quantizer->search(
                work.n,
                work.x_here ? work.x : work.queries,
                work.probes,
                work.list_distances,
                work.found_lists,
                work.quantizer_params);
        return;
    }
    std::vector<float> x(work.n * d), distances(pairs);
    std::vector<idx_t> found(pairs);
    copy(x.data(), work.x, x.size() * sizeof(float), work.stream);
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(work.stream));
    quantizer->search(
            work.n,
            x.data(),
            work.probes,
            distances.data(),
            found.data(),
            work.quantizer_params);
    copy(work.found_lists, found.data(), pairs * sizeof(idx_t), work.stream);
}

/*************************************************************
 * What is not done on the GPU
 *************************************************************/

void GpuIndexUnique::range_search_preassigned(
        idx_t,
        const float*,
        float,
        const idx_t*,
        const float*,
        faiss::RangeSearchResult*,
        bool,
        const faiss::IVFSearchParameters*,
        faiss::IndexIVFStats*) const {
    FAISS_THROW_MSG("range_search_preassigned: not on the GPU");
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
