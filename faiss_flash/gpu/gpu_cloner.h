#pragma once

// What faiss/gpu/GpuCloner.h has, for indexes whose vectors have copies.
// Present where FAISS was built with its GPU part.

#include <vector>

#include <faiss/gpu/GpuCloner.h>

namespace faiss_flash {

/** Copy an index to a GPU: FAISS's faiss::gpu::index_cpu_to_gpu, with
 * IndexIVFFlatFlash, IndexIVFPQFlash and IndexIVFScalarQuantizerFlash (alone
 * or inside IndexPreTransform and other wrappers that FAISS clones) becoming
 * a GpuIndexUnique, whose search returns no duplicates. The caller owns the
 * result.
 *
 * Codes: flat; PQ with 1 to 16 bits, any number of subquantizers, residuals
 * or not; SQ with 8, 6 and 4 bits (uniform and direct, too), fp16, bf16.
 * Others, polysemous filtering, and indexes that are not trained throw.
 *
 * Of GpuClonerOptions, for indexes of ours: useFloat16CoarseQuantizer and
 * allowCpuCoarseQuantizer are obeyed; ids have 64 bits whatever
 * indicesOptions says; there are no look-up tables (useFloat16,
 * usePrecomputed), nothing to reserve (reserveVecs), one layout
 * (storeTransposed) and no cuVS (use_cuvs).
 */
faiss::Index* index_cpu_to_gpu(
        faiss::gpu::GpuResourcesProvider* provider,
        int device,
        const faiss::Index* index,
        const faiss::gpu::GpuClonerOptions* options = nullptr);

/** Copy an index to several GPUs: a faiss::IndexReplicas or, with
 * options.shard, a faiss::IndexShards of such indexes. Shards are by id, all
 * copies of a vector in one of them (FAISS's shard type 1, the only one
 * here).
 */
faiss::Index* index_cpu_to_gpu_multiple(
        const std::vector<faiss::gpu::GpuResourcesProvider*>& providers,
        const std::vector<int>& devices,
        const faiss::Index* index,
        const faiss::gpu::GpuMultipleClonerOptions* options = nullptr);

/** The way back: the lists with all copies in their order, policy, mixture
 * and parameters; no direct map. A MixtureQuantizer comes back as a flat
 * quantizer, its variances and weights in the index's own fields. Replicas
 * give one of them, shards are merged.
 */
faiss::Index* index_gpu_to_cpu(const faiss::Index* index);

} // namespace faiss_flash
