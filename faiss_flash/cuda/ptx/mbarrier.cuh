#pragma once

// Shared-memory barriers that count arrivals and bytes (PTX ISA, mbarrier).

#include <cstdint>

namespace faiss_flash {
namespace ptx {

__device__ inline uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// A float2 or float4 in shared memory. The compiler does not see that
/// carved-up dynamic shared memory is shared memory, and would use generic
/// loads.
template <class T>
__device__ __forceinline__ T load_shared(uint32_t address) {
    T value;
    if constexpr (sizeof(T) == 16) {
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(value.x), "=f"(value.y), "=f"(value.z),
                       "=f"(value.w)
                     : "r"(address));
    } else {
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                     : "=f"(value.x), "=f"(value.y)
                     : "r"(address));
    }
    return value;
}

__device__ inline void mbarrier_init(uint64_t* bar, uint32_t arrivals) {
    asm volatile(
            "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(
                    shared_address(bar)),
            "r"(arrivals));
}

/// Makes initialised barriers visible to the copy engine.
__device__ inline void fence_barrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void mbarrier_arrive(uint64_t* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(
                         shared_address(bar))
                 : "memory");
}

/// One arrival, and `bytes` more expected from the copy engine.
__device__ inline void mbarrier_arrive_expect(uint64_t* bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                         shared_address(bar)),
                 "r"(bytes)
                 : "memory");
}

/// Wait for the phase of the given parity to complete.
__device__ inline void mbarrier_wait(uint64_t* bar, uint32_t parity) {
    asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "WAIT:\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
            "@done bra.uni DONE;\n"
            "bra.uni WAIT;\n"
            "DONE:\n"
            "}" ::"r"(shared_address(bar)),
            "r"(parity)
            : "memory");
}

} // namespace ptx
} // namespace faiss_flash
