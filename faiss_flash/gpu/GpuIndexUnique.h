#pragma once

#include <memory>

#include <faiss/IndexIVF.h>
#include <faiss/gpu/GpuResources.h>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

class DeviceLists;

/** Posting lists that may hold copies, on a GPU, searched without duplicates.
 * Made by index_cpu_to_gpu (gpu/gpu_cloner.h), which says what it knows.
 *
 * The k nearest distinct ids come whenever the probed lists hold k. Of an
 * id's copies the best one counts (for codes of residuals, whose copies
 * differ, a CPU index of ours reports the copy that it meets first).
 * Distances are computed in fp32 as ‖x − v‖² or x·v from decoded codes.
 * Results are ordered by (distance, id), but for equal distances by the
 * hundred (select_unique.h); of vectors with the k-th distance those of nearer
 * lists are preferred. The same bytes every run.
 *
 * Queries and results may be in host or device memory; as with FAISS's GPU
 * indexes everything happens in the resources' stream, and results on the
 * host are there when a call returns. From 1 to 2048 results; as many lists
 * as a GPU quantizer finds, 2048. Search parameters: SearchParametersIVF with
 * nprobe and quantizer_params; selectors, max_codes and polysemous_ht throw.
 * Vectors are added and removed on the CPU, before cloning: add and reset
 * throw.
 *
 * Memory: the lists once, as on the CPU, with 64-bit ids (device_lists.h),
 * and for a search up to 512 MiB of the resources' temporary memory (more
 * where one query alone needs it: 4 bytes per candidate).
 *
 * How it works: gpu/README.md.
 */
struct GpuIndexUnique : faiss::Index, faiss::IndexIVFInterface {
    /// What the CPU index knows beside vectors and centroids: its lists and
    /// quantizer are null pointers.
    std::unique_ptr<faiss::IndexIVF> cpu_part;

    /// Copies the index's lists. `quantizer` is its quantizer on the GPU (or
    /// the CPU), `cpu_part` as above.
    GpuIndexUnique(
            faiss::gpu::GpuResourcesProvider* provider,
            int device,
            const faiss::IndexIVF& index,
            std::unique_ptr<faiss::Index> quantizer,
            std::unique_ptr<faiss::IndexIVF> cpu_part);
    ~GpuIndexUnique() override;

    int getDevice() const {
        return device_;
    }
    /// posting-list entries, copies included
    idx_t ncopies() const;

    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override;

    /// Lists given by the caller, (n, nprobe), −1: none; their distances are
    /// not used. store_pairs and stats throw.
    void search_preassigned(
            idx_t n,
            const float* x,
            idx_t k,
            const idx_t* assign,
            const float* centroid_dis,
            float* distances,
            idx_t* labels,
            bool store_pairs,
            const faiss::IVFSearchParameters* params = nullptr,
            faiss::IndexIVFStats* stats = nullptr) const override;

    /// Throws, as FAISS's GPU indexes do.
    void range_search_preassigned(
            idx_t n,
            const float* x,
            float radius,
            const idx_t* keys,
            const float* coarse_dis,
            faiss::RangeSearchResult* result,
            bool store_pairs = false,
            const faiss::IVFSearchParameters* params = nullptr,
            faiss::IndexIVFStats* stats = nullptr) const override;

    /// Throws: vectors are added on the CPU.
    void add(idx_t n, const float* x) override;
    /// Throws.
    void reset() override;

    /// Appends all entries to as many empty lists: the way back.
    void copy_lists_to(faiss::InvertedLists& lists) const;

   private:
    struct Work;

    void search_lists(
            idx_t n,
            const float* x,
            idx_t k,
            size_t probes,
            const idx_t* assign,
            const faiss::SearchParameters* quantizer_params,
            float* distances,
            idx_t* labels) const;
    void search_block(const Work& work) const;
    void find_lists(const Work& work) const;

    std::shared_ptr<faiss::gpu::GpuResources> resources_;
    int device_;
    std::unique_ptr<DeviceLists> lists_;
};

} // namespace faiss_flash
