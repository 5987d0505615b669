#pragma once

// Bulk tensor copies (TMA): global memory to shared memory, by one thread.

#include <cuda.h>

#include <faiss_flash/cuda/ptx/mbarrier.cuh>

namespace faiss_flash {
namespace ptx {

__device__ inline void tma_prefetch_map(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/// The box of `map` whose first element is (column, row) into `to`; its
/// bytes arrive at `bar`.
__device__ inline void tma_load(
        void* to,
        const CUtensorMap* map,
        uint64_t* bar,
        int column,
        int row) {
    asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile"
            ".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
                    shared_address(to)),
            "l"(map),
            "r"(shared_address(bar)),
            "r"(column),
            "r"(row)
            : "memory");
}

/// `bytes` (a multiple of 16, like both addresses) in a row.
__device__ inline void
bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* bar) {
    asm volatile(
            "cp.async.bulk.shared::cluster.global"
            ".mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                    shared_address(to)),
            "l"(from),
            "r"(bytes),
            "r"(shared_address(bar))
            : "memory");
}

} // namespace ptx
} // namespace faiss_flash
