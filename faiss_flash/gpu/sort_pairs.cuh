#pragma once

// Pairs in shared memory sorted by a block.

#include <cstdint>

namespace faiss_flash {

/// Whether a place of a bitonic network keeps the lower of two, in the stage
/// that makes sorted runs of `run`.
__device__ inline bool keeps_lower(int at, int run, int step) {
    return ((at & run) == 0) == ((at & step) == 0);
}

/// What stays within 32 neighbours, of the stages for runs of first_run to
/// last_run: a warp each, in registers.
__device__ inline void sort_in_warps(
        uint32_t* keys,
        int64_t* ids,
        int size,
        int first_run,
        int last_run) {
    for (int at = threadIdx.x; at < size; at += blockDim.x) {
        uint32_t key = keys[at];
        int64_t id = ids[at];
        for (int run = first_run; run <= last_run; run *= 2) {
            for (int step = min(run / 2, 16); step > 0; step /= 2) {
                const uint32_t key2 = __shfl_xor_sync(0xffffffff, key, step);
                const int64_t id2 = __shfl_xor_sync(0xffffffff, id, step);
                const bool lower = key2 < key || (key2 == key && id2 < id);
                if (lower == keeps_lower(at, run, step)) {
                    key = key2;
                    id = id2;
                }
            }
        }
        keys[at] = key;
        ids[at] = id;
    }
}

/// keys and ids to the order of (key, id); `size` a power of two, at least 32.
__device__ inline void sort_pairs(uint32_t* keys, int64_t* ids, int size) {
    sort_in_warps(keys, ids, size, 2, 32);
    __syncthreads(); // runs of 32
    for (int run = 64; run <= size; run *= 2) {
        for (int step = run / 2; step >= 32; step /= 2) {
            for (int i = threadIdx.x; i < size / 2; i += blockDim.x) {
                const int a = 2 * i - (i & (step - 1));
                const int b = a + step;
                const uint32_t key = keys[a], key2 = keys[b];
                const int64_t id = ids[a], id2 = ids[b];
                const bool lower = key2 < key || (key2 == key && id2 < id);
                if (lower == keeps_lower(a, run, step)) {
                    keys[a] = key2;
                    ids[a] = id2;
                    keys[b] = key;
                    ids[b] = id;
                }
            }
            __syncthreads(); // this step is done
        }
        sort_in_warps(keys, ids, size, run, run);
        __syncthreads(); // runs of `run`
    }
}

} // namespace faiss_flash
