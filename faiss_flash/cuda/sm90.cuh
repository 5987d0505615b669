#pragma once

// What the two Hopper pipelines share.

#include <faiss_flash/cuda/assign.cuh>
#include <faiss_flash/cuda/ptx/tma.cuh>
#include <faiss_flash/cuda/ptx/wgmma.cuh>

namespace faiss_flash {
namespace sm90 {

constexpr int block_rows = 256;
constexpr int chunk = 64; // halves per 128-byte swizzled row

constexpr int groups = 4; ///< warpgroups that compute, 64 rows each
static_assert(groups * 64 == block_rows);
constexpr int threads = 128 * (groups + 1);
/// per thread, of the computing warpgroups and of the copying one
constexpr int compute_registers = 112, copy_registers = 24;

constexpr int row_chunk_bytes = block_rows * chunk * 2;
constexpr int tile_chunk_bytes = assign_columns * chunk * 2;

/// Position in a ring of buffers and the parity of its current use.
struct Ring {
    int slot = 0;
    uint32_t parity = 0;
    __device__ void advance(int size) {
        if (++slot == size) {
            slot = 0;
            parity ^= 1;
        }
    }
};

/// Which warpgroup this is, known to the compiler as the same for a warp.
__device__ __forceinline__ int warpgroup() {
    return __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
}

/// The lower of this thread's two rows of 64; the other is 8 further.
__device__ inline int row_of_thread() {
    return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
}

/// Of two columns, from global memory. The wider ones stay in the order of
/// the program: nothing but loads that run ahead hides their latency, and all
/// of them at once would take too many registers.
__device__ __forceinline__ float2 load_columns(const float2* from) {
    return __ldg(from);
}
__device__ __forceinline__ float4 load_columns(const float4* from) {
    float4 c;
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(c.x), "=f"(c.y), "=f"(c.z), "=f"(c.w)
                 : "l"(from));
    return c;
}

/// What a pipeline has to know of its input.
struct PassShape {
    int64_t n;           ///< rows
    int d_padded;        ///< dimensions, a multiple of 8
    int k_padded;        ///< columns, a multiple of assign_columns
    const void* columns; ///< (k_padded / 2) of an Epilogue's Columns
};

} // namespace sm90
} // namespace faiss_flash
