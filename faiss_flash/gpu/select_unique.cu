#include <faiss_flash/gpu/select_unique.h>

#include <algorithm>
#include <cfloat>

#include <faiss_flash/gpu/id_table.cuh>
#include <faiss_flash/gpu/sort_pairs.cuh>

namespace faiss_flash {

namespace {

constexpr uint32_t no_key = 0xffffffff; // of what is no result
constexpr int bins = 1024;
constexpr int most_warps = 32;
constexpr int most_wanted = 1024; // 78 KiB of shared memory for k = 2048

/// What a block keeps in shared memory for k results of one query.
struct Plan {
    int k;
    int wanted;   ///< candidates of a round, at least, where there are as many
    int capacity; ///< at most; a power of two
    int slots;    ///< of the hash table; a power of two

    /// ids of results, then those of a round; keys of a round; hash table;
    /// histogram
    __host__ __device__ size_t bytes() const {
        return (size_t)(k + capacity) * sizeof(int64_t) +
                (size_t)(capacity + slots + bins) * sizeof(uint32_t);
    }
};

int power_of_two(int64_t least) {
    int power = 1;
    while (power < least) {
        power *= 2;
    }
    return power;
}

Plan make_plan(int k, int copies) {
    Plan plan;
    plan.k = k;
    plan.wanted = (int)std::min<int64_t>((int64_t)k * copies, most_wanted);
    plan.capacity = power_of_two(std::max(64, plan.wanted + plan.wanted / 2));
    // at most three quarters full
    plan.slots = power_of_two((k + plan.capacity) * 4 / 3);
    return plan;
}

/// In the order of the scores; −0 is 0.
__device__ inline uint32_t key_of(float score) {
    if (!(score < FLT_MAX)) {
        return no_key;
    }
    const uint32_t word = __float_as_uint(score + 0.0f);
    return word & 0x80000000u ? ~word : word | 0x80000000u;
}

__device__ inline float score_of(uint32_t key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/// What the threads of a block tell each other.
struct Talk {
    uint32_t of_warp[most_warps];
    uint32_t low, high, count;
    int bin;
};

/// The number of lower threads with a flag, and of all with one. Everybody
/// comes here.
__device__ inline int rank_in_block(bool flag, Talk& talk, int& all) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned flags = __ballot_sync(0xffffffff, flag);
    __syncthreads(); // of_warp is no longer read
    if (lane == 0) {
        talk.of_warp[warp] = __popc(flags);
    }
    __syncthreads(); // of_warp is there
    int rank = __popc(flags & ((1u << lane) - 1));
    all = 0;
    for (int w = 0; w < (int)blockDim.x / 32; w++) {
        rank += w < warp ? talk.of_warp[w] : 0;
        all += talk.of_warp[w];
    }
    return rank;
}

/// One query's candidates. A candidate's number is its key, then its place,
/// so no two are equal.
struct Candidates {
    const float* scores;
    uint32_t count;

    /// fn(key, place), in parallel, for those that can be results
    template <class Fn>
    __device__ void each(Fn&& fn) const {
        const uint32_t step = 4 * blockDim.x;
        for (uint32_t at = 4 * threadIdx.x; at < count; at += 2 * step) {
            // two pieces on their way at a time
            const float4 first = read(at);
            const float4 second = read(at + step);
            each_of(first, at, fn);
            each_of(second, at + step, fn);
        }
    }

   private:
    /// Rows begin at a whole float4. What is not there is no result.
    __device__ float4 read(uint32_t at) const {
        if (at + 4 <= count) {
            return __ldg(reinterpret_cast<const float4*>(scores + at));
        }
        return make_float4(
                at < count ? scores[at] : FLT_MAX,
                at + 1 < count ? scores[at + 1] : FLT_MAX,
                at + 2 < count ? scores[at + 2] : FLT_MAX,
                FLT_MAX);
    }
    template <class Fn>
    __device__ void each_of(float4 four, uint32_t at, Fn& fn) const {
        const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t key = key_of(values[i]);
            if (key != no_key) {
                fn(key, at + i);
            }
        }
    }
};

__device__ inline uint64_t number_of(uint32_t key, uint32_t place) {
    return (uint64_t)key << 32 | place;
}

/** The end of a range that begins at `low` and holds at least `wanted` and at
 * most `capacity` candidates; `high` if there are at most `capacity` up to it.
 */
__device__ uint64_t find_end(
        const Candidates& candidates,
        uint64_t low,
        uint64_t high,
        uint32_t left,
        int wanted,
        int capacity,
        uint32_t* histogram,
        Talk& talk) {
    if (left <= (uint32_t)capacity) {
        return high;
    }
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int per_thread = bins / blockDim.x;
    while (true) {
        // bins of 2^shift numbers, as few as cover the range
        const int shift =
                max(0, 64 - __clzll((long long)(high - low)) - 10);
        __syncthreads(); // the histogram is no longer read
        for (int i = threadIdx.x; i < bins; i += blockDim.x) {
            histogram[i] = 0;
        }
        __syncthreads(); // it is empty
        candidates.each([&](uint32_t key, uint32_t place) {
            const uint64_t number = number_of(key, place);
            if (number >= low && number <= high) {
                atomicAdd(&histogram[(number - low) >> shift], 1);
            }
        });
        __syncthreads(); // it is full
        uint32_t mine = 0;
        for (int i = 0; i < per_thread; i++) {
            mine += histogram[threadIdx.x * per_thread + i];
        }
        uint32_t sum = mine;
        for (int step = 1; step < 32; step *= 2) {
            const uint32_t other = __shfl_up_sync(0xffffffff, sum, step);
            sum += lane >= step ? other : 0;
        }
        if (lane == 31) {
            talk.of_warp[warp] = sum;
        }
        __syncthreads(); // of_warp is there
        for (int w = 0; w < warp; w++) {
            sum += talk.of_warp[w];
        }
        // in exactly one thread
        if (sum - mine < (uint32_t)wanted && sum >= (uint32_t)wanted) {
            uint32_t before = sum - mine;
            int bin = threadIdx.x * per_thread;
            while (before + histogram[bin] < (uint32_t)wanted) {
                before += histogram[bin++];
            }
            talk.bin = bin;
            talk.low = before;
            talk.high = before + histogram[bin];
        }
        __syncthreads(); // the bin is there
        const uint64_t begin = low + ((uint64_t)talk.bin << shift);
        const uint64_t end =
                min(high, begin + ((uint64_t)1 << shift) - 1);
        if (talk.high <= (uint32_t)capacity) {
            return end;
        }
        // too many in this bin: look into it. A bin of one number has one.
        wanted -= talk.low;
        capacity -= talk.low;
        low = begin;
        high = end;
    }
}

/// The id of a query's candidate.
__device__ int64_t id_of(
        const ListsView& lists,
        const int* query_lists,
        const uint32_t* places,
        int nprobe,
        uint32_t place) {
    // the last probe that begins at or before it: empty ones come before
    int low = 0, high = nprobe;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (places[middle] <= place) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return lists.ids[lists.begins[query_lists[low]] + place - places[low]];
}

__global__ void select_unique_kernel(
        ListsView lists,
        ProbesView probes,
        const float* __restrict__ scores,
        Plan plan,
        bool negate,
        float* __restrict__ distances,
        int64_t* __restrict__ labels) {
    extern __shared__ int64_t ids[];
    int64_t* const round_ids = ids + plan.k;
    uint32_t* const keys = reinterpret_cast<uint32_t*>(
            round_ids + plan.capacity);
    IdTable table{
            reinterpret_cast<int*>(keys + plan.capacity), plan.slots - 1, ids};
    uint32_t* const histogram = keys + plan.capacity + plan.slots;
    __shared__ Talk talk;

    const int64_t query = blockIdx.x;
    const Candidates candidates{
            scores + query * probes.stride, probes.counts[query]};
    distances += query * plan.k;
    labels += query * plan.k;
    for (int i = threadIdx.x; i < plan.slots; i += blockDim.x) {
        table.slots[i] = -1;
    }
    if (threadIdx.x == 0) {
        talk.low = no_key;
        talk.high = talk.count = 0;
    }
    __syncthreads(); // talk is ready
    uint32_t least = no_key, most = 0, count = 0;
    candidates.each([&](uint32_t key, uint32_t) {
        least = min(least, key);
        most = max(most, key);
        count++;
    });
    least = __reduce_min_sync(0xffffffff, least);
    most = __reduce_max_sync(0xffffffff, most);
    count = __reduce_add_sync(0xffffffff, count);
    if (threadIdx.x % 32 == 0 && count > 0) {
        atomicMin(&talk.low, least);
        atomicMax(&talk.high, most);
        atomicAdd(&talk.count, count);
    }
    __syncthreads(); // the range is known
    uint64_t low = number_of(talk.low, 0);
    const uint64_t high = number_of(talk.high, 0xffffffff);
    uint32_t left = talk.count;

    int found = 0;
    while (found < plan.k && left > 0) {
        const uint64_t end = find_end(
                candidates,
                low,
                high,
                left,
                plan.wanted,
                plan.capacity,
                histogram,
                talk);
        __syncthreads(); // talk is no longer read
        if (threadIdx.x == 0) {
            talk.count = 0;
        }
        __syncthreads(); // the count is 0
        candidates.each([&](uint32_t key, uint32_t place) {
            const uint64_t number = number_of(key, place);
            if (number >= low && number <= end) {
                const uint32_t at = atomicAdd(&talk.count, 1);
                keys[at] = key;
                round_ids[at] = place;
            }
        });
        __syncthreads(); // the round's candidates are there
        const int taken = talk.count;
        int padded = 32;
        while (padded < taken) {
            padded *= 2;
        }
        for (int i = threadIdx.x; i < padded; i += blockDim.x) {
            if (i < taken) {
                round_ids[i] = id_of(
                        lists,
                        probes.lists + query * probes.nprobe,
                        probes.places + query * probes.nprobe,
                        probes.nprobe,
                        (uint32_t)round_ids[i]);
            } else {
                keys[i] = no_key; // goes to the end
                round_ids[i] = INT64_MAX;
            }
        }
        __syncthreads(); // ids instead of places
        sort_pairs(keys, round_ids, padded);
        for (int i = threadIdx.x; i < taken; i += blockDim.x) {
            table.insert(plan.k + i);
        }
        __syncthreads(); // the table knows this round's ids
        for (int first = 0; first < taken; first += blockDim.x) {
            const int i = first + threadIdx.x;
            const int slot = i < taken ? table.find(plan.k + i) : 0;
            const bool is_new = i < taken && table.slots[slot] == plan.k + i;
            int news;
            const int at = found + rank_in_block(is_new, talk, news);
            if (is_new && at < plan.k) {
                const float score = score_of(keys[i]);
                distances[at] = negate ? -score : score;
                labels[at] = round_ids[i];
                // for later rounds; the same id under both indices
                ids[at] = round_ids[i];
                table.slots[slot] = at;
            }
            found = min(plan.k, found + news);
            __syncthreads(); // slots and their ids agree
        }
        low = end + 1;
        left -= taken;
    }
    for (int i = found + threadIdx.x; i < plan.k; i += blockDim.x) {
        distances[i] = negate ? -FLT_MAX : FLT_MAX;
        labels[i] = -1;
    }
}

} // namespace

cudaError_t select_unique(
        const ListsView& lists,
        const ProbesView& probes,
        const float* scores,
        int k,
        int copies,
        bool negate,
        float* distances,
        int64_t* labels,
        cudaStream_t stream) {
    const Plan plan = make_plan(k, copies);
    if (plan.bytes() > 40 << 10) {
        const cudaError_t error = cudaFuncSetAttribute(
                select_unique_kernel,
                cudaFuncAttributeMaxDynamicSharedMemorySize,
                (int)plan.bytes());
        if (error != cudaSuccess) {
            return error;
        }
    }
    // more for few queries, and for many candidates
    const int few = probes.n < 512;
    const int threads = probes.stride < 16384 ? few ? 256 : 128
                                              : few ? 1024 : 512;
    select_unique_kernel<<<(unsigned)probes.n, threads, plan.bytes(), stream>>>(
            lists, probes, scores, plan, negate, distances, labels);
    return cudaGetLastError();
}

} // namespace faiss_flash
