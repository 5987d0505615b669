#pragma once

namespace faiss_flash {

/// Sum over a warp in a fixed order: every lane gets the same bytes.
template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, step);
    }
    return value;
}

} // namespace faiss_flash
