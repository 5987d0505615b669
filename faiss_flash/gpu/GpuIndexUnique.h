#pragma once

#include <memory>

#include <faiss/gpu/GpuIndex.h>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/ivf/list_mixture.h>

namespace faiss_flash {

/** A FAISS GPU IVF index over lists that hold copies, searched without
 * duplicates. Made by index_cpu_to_gpu (gpu/gpu_cloner.h).
 *
 * A search asks the GPU index for k·c results, c being the most copies that
 * any vector has, and keeps the first of each id, on the device and in the
 * index's stream: so k distinct ids come whenever the probed lists hold k
 * vectors. A vector has the distance of its best copy (for codes of residuals
 * a CPU index of ours reports the copy that it meets first).
 *
 * Queries and results may be in host or device memory, as for FAISS's GPU
 * indexes. k·c is at most 2048, FAISS's bound. Search parameters are passed
 * on. Vectors are added and removed on the CPU, before cloning: add and reset
 * throw.
 */
struct GpuIndexUnique : faiss::Index, FlashOptions {
    /// GpuIndexIVFFlat, GpuIndexIVFPQ or GpuIndexIVFScalarQuantizer
    std::unique_ptr<faiss::gpu::GpuIndex> index;
    /// most posting-list entries of one id
    int most_copies = 1;
    /// of the index this was made from, for the way back
    ListMixture mixture;

    GpuIndexUnique(
            std::unique_ptr<faiss::gpu::GpuIndex> index,
            int most_copies);

    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override;

    /// Throws: vectors are added on the CPU.
    void add(idx_t n, const float* x) override;
    /// Throws.
    void reset() override;
};

} // namespace faiss_flash
