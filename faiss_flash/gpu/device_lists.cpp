#include <faiss_flash/gpu/device_lists.h>

#include <algorithm>
#include <functional>

#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexScalarQuantizer.h>

#include <faiss_flash/cuda/device.h>

namespace faiss_flash {

using faiss::gpu::AllocType;

namespace {

/// Bytes that gather on the host and then go to the device in one copy, or
/// come from there.
constexpr size_t staging_bytes = 32 << 20;

/// [first, last) of lists that together fill the staging memory, or one list.
size_t last_staged(
        const std::vector<int64_t>& begins,
        size_t first,
        size_t entry_bytes) {
    size_t last = first + 1;
    while (last + 1 < begins.size() &&
           (begins[last + 1] - begins[first]) * entry_bytes <= staging_bytes) {
        last++;
    }
    return last;
}

struct SqFormat {
    CodeKind kind;
    int levels; ///< largest number; 0: no scale
};

SqFormat format_of(const faiss::ScalarQuantizer& sq) {
    using SQ = faiss::ScalarQuantizer;
    switch (sq.qtype) {
        case SQ::QT_8bit:
        case SQ::QT_8bit_uniform:
            return {CodeKind::sq8, 255};
        case SQ::QT_6bit:
            return {CodeKind::sq6, 63};
        case SQ::QT_4bit:
        case SQ::QT_4bit_uniform:
            return {CodeKind::sq4, 15};
        case SQ::QT_8bit_direct:
        case SQ::QT_8bit_direct_signed:
            return {CodeKind::sq8, 0};
        case SQ::QT_fp16:
            return {CodeKind::fp16, 0};
        case SQ::QT_bf16:
            return {CodeKind::bf16, 0};
        default:
            FAISS_THROW_FMT(
                    "the scalar quantizer's type %d is not known on the GPU",
                    (int)sq.qtype);
    }
}

/// Component j of the number i is offset[j] + scale[j]·i.
struct SqRange {
    std::vector<float> offset, scale;
};

SqRange range_of(const faiss::ScalarQuantizer& sq, int levels) {
    using SQ = faiss::ScalarQuantizer;
    if (levels == 0) {
        const bool is_signed = sq.qtype == SQ::QT_8bit_direct_signed;
        return {std::vector<float>(sq.d, is_signed ? -128.0f : 0.0f),
                std::vector<float>(sq.d, 1.0f)};
    }
    // trained: the lowest values, then the ranges; one of each if uniform
    const size_t sets = sq.trained.size() / 2;
    FAISS_THROW_IF_NOT_FMT(
            sets == 1 || sets == sq.d,
            "the scalar quantizer has %zd ranges instead of 1 or %zd",
            sets,
            sq.d);
    SqRange range{std::vector<float>(sq.d), std::vector<float>(sq.d)};
    for (size_t j = 0; j < sq.d; j++) {
        const size_t set = sets == 1 ? 0 : j;
        range.scale[j] = sq.trained[sets + set] / levels;
        range.offset[j] = sq.trained[set] + 0.5f * range.scale[j];
    }
    return range;
}

} // namespace

DeviceLists::DeviceLists(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        const faiss::IndexIVF& index)
        : resources_(std::move(resources)),
          device_(device) {
    view_.d = index.d;
    view_.nlist = index.nlist;
    view_.code_size = (int)index.code_size;
    set_codec(index);
    upload_lists(*index.invlists);
    // FAISS's IVFFlat has no residuals, whatever by_residual says
    if (index.by_residual &&
        !dynamic_cast<const faiss::IndexIVFFlat*>(&index)) {
        std::vector<float> centroids(index.nlist * index.d);
        index.quantizer->reconstruct_n(0, index.nlist, centroids.data());
        view_.centroids = upload(AllocType::Quantizer, centroids);
    }
}

void* DeviceLists::allocate(AllocType type, size_t bytes) {
    memory_.push_back(resources_->allocMemoryHandle(faiss::gpu::AllocRequest(
            type,
            device_,
            faiss::gpu::MemorySpace::Device,
            stream(),
            std::max<size_t>(bytes, 1))));
    return memory_.back().get();
}

template <class T>
const T* DeviceLists::upload(AllocType type, const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    void* to = allocate(type, bytes);
    // the source is ordinary memory: it may go when this returns
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            to, values.data(), bytes, cudaMemcpyHostToDevice, stream()));
    return static_cast<const T*>(to);
}

void DeviceLists::set_codec(const faiss::IndexIVF& index) {
    view_.quads = view_.d % 4 == 0;
    if (dynamic_cast<const faiss::IndexIVFFlat*>(&index)) {
        view_.kind = CodeKind::fp32;
    } else if (auto* ivfpq = dynamic_cast<const faiss::IndexIVFPQ*>(&index)) {
        FAISS_THROW_IF_NOT_FMT(
                ivfpq->polysemous_ht == 0,
                "polysemous_ht = %d should be 0: the GPU does not compare "
                "Hamming distances",
                (int)ivfpq->polysemous_ht);
        const faiss::ProductQuantizer& pq = ivfpq->pq;
        FAISS_THROW_IF_NOT_FMT(
                pq.nbits >= 1 && pq.nbits <= 16,
                "pq.nbits = %zd should be from 1 to 16 on the GPU",
                (size_t)pq.nbits);
        view_.kind = pq.nbits == 8 ? CodeKind::pq8 : CodeKind::pq;
        view_.pq_bits = (int)pq.nbits;
        view_.pq_dsub = (int)pq.dsub;
        view_.quads = view_.quads && pq.nbits == 8;
        view_.codebook = upload(AllocType::Quantizer, pq.centroids);
    } else if (
            auto* ivfsq = dynamic_cast<const faiss::IndexIVFScalarQuantizer*>(
                    &index)) {
        const SqFormat format = format_of(ivfsq->sq);
        view_.kind = format.kind;
        if (format.kind != CodeKind::fp16 && format.kind != CodeKind::bf16) {
            const SqRange range = range_of(ivfsq->sq, format.levels);
            view_.scale = upload(AllocType::Quantizer, range.scale);
            view_.offset = upload(AllocType::Quantizer, range.offset);
        }
    } else {
        FAISS_THROW_MSG("codes of this kind of index are not known on the GPU");
    }
}

void DeviceLists::upload_lists(const faiss::InvertedLists& lists) {
    std::vector<int64_t> sizes(lists.nlist);
    begins_.assign(1, 0);
    for (size_t list = 0; list < lists.nlist; list++) {
        sizes[list] = lists.list_size(list);
        begins_.push_back(begins_.back() + sizes[list]);
    }
    std::sort(sizes.begin(), sizes.end(), std::greater<int64_t>());
    most_entries_.assign(1, 0);
    for (const int64_t size : sizes) {
        most_entries_.push_back(most_entries_.back() + size);
    }
    view_.entries = begins_.back();
    view_.longest = most_entries_[1];
    view_.begins = upload(AllocType::IVFLists, begins_);

    const size_t code_size = view_.code_size;
    auto* codes = static_cast<uint8_t*>(
            allocate(AllocType::IVFLists, begins_.back() * code_size));
    auto* ids = static_cast<idx_t*>(
            allocate(AllocType::IVFLists, begins_.back() * sizeof(idx_t)));
    view_.codes = codes;
    view_.ids = ids;
    std::vector<uint8_t> some_codes;
    std::vector<idx_t> some_ids;
    for (size_t first = 0; first < lists.nlist;) {
        const size_t last = last_staged(begins_, first, code_size + 8);
        some_codes.clear();
        some_ids.clear();
        for (size_t list = first; list < last; list++) {
            const size_t size = begins_[list + 1] - begins_[list];
            faiss::InvertedLists::ScopedCodes list_codes(&lists, list);
            faiss::InvertedLists::ScopedIds list_ids(&lists, list);
            some_codes.insert(
                    some_codes.end(),
                    list_codes.get(),
                    list_codes.get() + size * code_size);
            some_ids.insert(
                    some_ids.end(), list_ids.get(), list_ids.get() + size);
        }
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                codes + begins_[first] * code_size,
                some_codes.data(),
                some_codes.size(),
                cudaMemcpyHostToDevice,
                stream()));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                ids + begins_[first],
                some_ids.data(),
                some_ids.size() * sizeof(idx_t),
                cudaMemcpyHostToDevice,
                stream()));
        first = last;
    }
}

void DeviceLists::copy_to(faiss::InvertedLists& lists) const {
    const size_t code_size = view_.code_size;
    std::vector<uint8_t> some_codes;
    std::vector<idx_t> some_ids;
    for (size_t first = 0; first + 1 < begins_.size();) {
        const size_t last = last_staged(begins_, first, code_size + 8);
        const size_t count = begins_[last] - begins_[first];
        some_codes.resize(count * code_size);
        some_ids.resize(count);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                some_codes.data(),
                view_.codes + begins_[first] * code_size,
                some_codes.size(),
                cudaMemcpyDeviceToHost,
                stream()));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                some_ids.data(),
                view_.ids + begins_[first],
                some_ids.size() * sizeof(idx_t),
                cudaMemcpyDeviceToHost,
                stream()));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream()));
        for (size_t list = first; list < last; list++) {
            const size_t at = begins_[list] - begins_[first];
            lists.add_entries(
                    list,
                    begins_[list + 1] - begins_[list],
                    some_ids.data() + at,
                    some_codes.data() + at * code_size);
        }
        first = last;
    }
}

} // namespace faiss_flash
