#pragma once

// Asynchronous warpgroup matrix products (sm_90a): 64 × 128 outputs in
// registers, both operands in shared memory, fp16 in, fp32 out.

#include <cstdint>

#include <faiss_flash/cuda/ptx/mbarrier.cuh>

namespace faiss_flash {
namespace ptx {

/// Registers may be used by the products that follow.
__device__ inline void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// Closes the group of products issued since the last one.
__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Wait until at most `pending` groups are still running.
template <int pending>
__device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending)
                 : "memory");
}

/// Hands registers from the copying warps to the computing ones.
template <int registers>
__device__ inline void registers_give() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ inline void registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

/// Describes a K-major operand tile whose rows are 64 halves (128 bytes)
/// with 128-byte swizzle, groups of 8 rows 1024 bytes apart.
///
/// `at` is where it starts, as operand_address() gives it for a multiple of
/// 1024 bytes; further operands are at + bytes / 16, a step of 16 halves
/// along K is 32 bytes. So a descriptor costs one addition on 32 bits.
__device__ __forceinline__ uint64_t wgmma_operand(uint32_t at) {
    const uint32_t group_stride = 1024 >> 4;
    const uint32_t swizzle_128 = 1u << 30;
    return uint64_t(swizzle_128 | group_stride) << 32 | at;
}

__device__ inline uint32_t operand_address(const void* tile) {
    return (shared_address(tile) & 0x3FFFF) >> 4 | 1u << 16;
}

/// acc (+)= A · Bᵀ for A (64, 16) and B (128, 16); `accumulate` false
/// overwrites. Thread t of the warpgroup holds, for g < 16, rows
/// 16·(t/32) + (t%32)/4 (elements 4g, 4g+1) and that + 8 (4g+2, 4g+3),
/// columns 8g + 2·(t%4) and the next.
__device__ inline void wgmma_64x128x16(
        float (&acc)[64],
        uint64_t a,
        uint64_t b,
        bool accumulate) {
    asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "setp.ne.b32 p, %66, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, "
            "%8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, "
            "%24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, "
            "%40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, "
            "%56, %57, %58, %59, %60, %61, %62, %63}, "
            "%64, %65, p, 1, 1, 0, 0;\n"
            "}\n"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]),
              "+f"(acc[4]), "+f"(acc[5]), "+f"(acc[6]), "+f"(acc[7]),
              "+f"(acc[8]), "+f"(acc[9]), "+f"(acc[10]), "+f"(acc[11]),
              "+f"(acc[12]), "+f"(acc[13]), "+f"(acc[14]), "+f"(acc[15]),
              "+f"(acc[16]), "+f"(acc[17]), "+f"(acc[18]), "+f"(acc[19]),
              "+f"(acc[20]), "+f"(acc[21]), "+f"(acc[22]), "+f"(acc[23]),
              "+f"(acc[24]), "+f"(acc[25]), "+f"(acc[26]), "+f"(acc[27]),
              "+f"(acc[28]), "+f"(acc[29]), "+f"(acc[30]), "+f"(acc[31]),
              "+f"(acc[32]), "+f"(acc[33]), "+f"(acc[34]), "+f"(acc[35]),
              "+f"(acc[36]), "+f"(acc[37]), "+f"(acc[38]), "+f"(acc[39]),
              "+f"(acc[40]), "+f"(acc[41]), "+f"(acc[42]), "+f"(acc[43]),
              "+f"(acc[44]), "+f"(acc[45]), "+f"(acc[46]), "+f"(acc[47]),
              "+f"(acc[48]), "+f"(acc[49]), "+f"(acc[50]), "+f"(acc[51]),
              "+f"(acc[52]), "+f"(acc[53]), "+f"(acc[54]), "+f"(acc[55]),
              "+f"(acc[56]), "+f"(acc[57]), "+f"(acc[58]), "+f"(acc[59]),
              "+f"(acc[60]), "+f"(acc[61]), "+f"(acc[62]), "+f"(acc[63])
            : "l"(a), "l"(b), "r"(int(accumulate)));
}

/// The same with A in registers, and B (16, 128), whose rows are steps of the
/// product. Thread t of the warpgroup gives, of A's rows 16·(t/32) +
/// (t%32)/4 and that + 8: a[0], a[1] their columns 2·(t%4) and the next;
/// a[2], a[3] those 8 further.
__device__ inline void wgmma_registers_64x128x16(
        float (&acc)[64],
        const uint32_t (&a)[4],
        uint64_t b,
        bool accumulate) {
    asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "setp.ne.b32 p, %69, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, "
            "%8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, "
            "%24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, "
            "%40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, "
            "%56, %57, %58, %59, %60, %61, %62, %63}, "
            "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n"
            "}\n"
            : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]),
              "+f"(acc[4]), "+f"(acc[5]), "+f"(acc[6]), "+f"(acc[7]),
              "+f"(acc[8]), "+f"(acc[9]), "+f"(acc[10]), "+f"(acc[11]),
              "+f"(acc[12]), "+f"(acc[13]), "+f"(acc[14]), "+f"(acc[15]),
              "+f"(acc[16]), "+f"(acc[17]), "+f"(acc[18]), "+f"(acc[19]),
              "+f"(acc[20]), "+f"(acc[21]), "+f"(acc[22]), "+f"(acc[23]),
              "+f"(acc[24]), "+f"(acc[25]), "+f"(acc[26]), "+f"(acc[27]),
              "+f"(acc[28]), "+f"(acc[29]), "+f"(acc[30]), "+f"(acc[31]),
              "+f"(acc[32]), "+f"(acc[33]), "+f"(acc[34]), "+f"(acc[35]),
              "+f"(acc[36]), "+f"(acc[37]), "+f"(acc[38]), "+f"(acc[39]),
              "+f"(acc[40]), "+f"(acc[41]), "+f"(acc[42]), "+f"(acc[43]),
              "+f"(acc[44]), "+f"(acc[45]), "+f"(acc[46]), "+f"(acc[47]),
              "+f"(acc[48]), "+f"(acc[49]), "+f"(acc[50]), "+f"(acc[51]),
              "+f"(acc[52]), "+f"(acc[53]), "+f"(acc[54]), "+f"(acc[55]),
              "+f"(acc[56]), "+f"(acc[57]), "+f"(acc[58]), "+f"(acc[59]),
              "+f"(acc[60]), "+f"(acc[61]), "+f"(acc[62]), "+f"(acc[63])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
              "r"(int(accumulate)));
}

} // namespace ptx
} // namespace faiss_flash
