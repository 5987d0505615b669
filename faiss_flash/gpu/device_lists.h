#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include <faiss/IndexIVF.h>
#include <faiss/gpu/GpuResources.h>

#include <faiss_flash/gpu/lists_view.h>

namespace faiss_flash {

/** The posting lists of an index in device memory: codes as they are on the
 * CPU, one list after the other, 64-bit ids, and what decodes them.
 *
 * entries · (code_size + 8) + nlist · 8 bytes, and nlist · d · 4 for the
 * centroids where codes are of residuals.
 *
 * Codes that FAISS's own GPU indexes know, and a few more: IVFFlat, IVFPQ
 * with up to 16 bits, IVFScalarQuantizer with 8, 6 and 4 bits (their uniform
 * and direct forms, too), fp16 and bf16.
 */
class DeviceLists {
   public:
    /// Copies the lists; `device` is the current one. Throws where codes are
    /// of another kind, or where the device has too little memory.
    DeviceLists(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int device,
            const faiss::IndexIVF& index);

    const ListsView& view() const {
        return view_;
    }

    /// Most entries that `nprobe` different lists can have.
    int64_t most_entries(size_t nprobe) const {
        return most_entries_[nprobe];
    }
    int64_t entries() const {
        return begins_.back();
    }

    /// Appends all entries to as many empty lists.
    void copy_to(faiss::InvertedLists& lists) const;

   private:
    void* allocate(faiss::gpu::AllocType type, size_t bytes);
    template <class T>
    const T* upload(faiss::gpu::AllocType type, const std::vector<T>& values);
    cudaStream_t stream() const {
        return resources_->getDefaultStream(device_);
    }
    void set_codec(const faiss::IndexIVF& index);
    void upload_lists(const faiss::InvertedLists& lists);

    std::shared_ptr<faiss::gpu::GpuResources> resources_;
    int device_;
    std::vector<faiss::gpu::GpuMemoryReservation> memory_;
    std::vector<int64_t> begins_;       ///< (nlist + 1)
    std::vector<int64_t> most_entries_; ///< (nlist + 1)
    ListsView view_;
};

} // namespace faiss_flash
