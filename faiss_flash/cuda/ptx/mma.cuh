#pragma once

// Warp-wide matrix products and asynchronous copies of sm_80 and later.

#include <cstdint>

#include <faiss_flash/cuda/ptx/mbarrier.cuh>

namespace faiss_flash {
namespace ptx {

/// 16 bytes from global to shared memory; zeros where `valid` is false.
__device__ inline void copy_async_16(
        void* to,
        const void* from,
        bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                         shared_address(to)),
                 "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ inline void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int pending>
__device__ inline void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/// Four 8×8 half matrices; lane l gives the address of one row.
__device__ inline void load_matrix_x4(uint32_t (&m)[4], const void* row) {
    asm volatile(
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
            : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
            : "r"(shared_address(row))
            : "memory");
}

/// acc += A · Bᵀ, A (16, 16), B (8, 16), fp16 in, fp32 out. Lane l holds rows
/// l/4 (acc 0, 1) and l/4 + 8 (acc 2, 3), columns 2·(l%4) and the next.
__device__ inline void mma_16x8x16(
        float (&acc)[4],
        const uint32_t (&a)[4],
        uint32_t b0,
        uint32_t b1) {
    asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

} // namespace ptx
} // namespace faiss_flash
