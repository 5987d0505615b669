// Lists to entries: what the scores prove to be worth nothing is left out.

#include <cub/device/device_scan.cuh>

#include <faiss_flash/cuda/mixture/row_lanes.cuh>
#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

/// One thread per part of a row's list.
template <int parts>
__global__ void __launch_bounds__(threads) filter_rows_kernel(
        int64_t n,
        int k,
        float range,
        float most_drop,
        const ListOutput lists,
        const RowLimit* __restrict__ limits,
        uint64_t* __restrict__ places,
        float* __restrict__ cut,
        float* __restrict__ dropped) {
    const int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t row = thread / parts;
    const bool real = row < n;
    const int part = threadIdx.x % parts;
    const int count = real ? lists.counts[row * list_parts + part] : 0;
    // overflow counts as more than any list can have
    const int size = row_sum<parts>(count == list_overflow ? 1 << 16 : count);
    const bool dense = size == 0 || size >= 1 << 16;
    const int end = dense ? 0 : count;
    const Listed* listed =
            lists.listed + row * list_capacity + part * (list_capacity / parts);
    float top = -INFINITY;
    for (int j = 0; j < end; j++) {
        top = fmaxf(top, listed[j].score);
    }
    top = row_max<parts>(top);
    // the row's maximum is at least this
    const float lower = real ? top - (limits[row].rise - range) : 0;
    // Leaving out shares below most_drop / size is always within bounds; a
    // larger limit is, too, if what lies below it adds up to little enough.
    const float least[3] = {
            lower + logf(most_drop / size),
            lower + logf(most_drop * (1 / 3.0f)),
            lower + logf(most_drop * (2 / 3.0f))};
    float mass[3] = {};
    uint32_t below = 0; // how many, ten bits for each limit
    for (int j = 0; j < end; j++) {
        const float score = listed[j].score;
        if (score < fmaxf(least[0], least[2])) { // not where one is NaN
            const float share = expf(score - lower);
#pragma unroll
            for (int l = 0; l < 3; l++) {
                if (score < least[l]) {
                    mass[l] += share;
                    below += 1u << (10 * l);
                }
            }
        }
    }
    below = row_sum<parts>(below);
#pragma unroll
    for (int l = 0; l < 3; l++) {
        mass[l] = row_sum<parts>(mass[l]);
    }
    const int level = size > 1 && mass[2] <= most_drop ? 2
            : size > 1 && mass[1] <= most_drop         ? 1
                                                       : 0;
    const int kept = size - (below >> (10 * level) & 0x3ff);
    if (part == 0 && row <= n) {
        places[row] = !real ? 0
                : dense     ? uint64_t(1) << RowPlace::dense_shift
                            : kept;
        if (real) {
            cut[row] = level == 2 ? least[2]
                    : level == 1  ? least[1]
                                  : least[0];
            dropped[row] = (level == 2         ? mass[2]
                                    : level == 1 ? mass[1]
                                                 : mass[0]) +
                    (size < k ? k * expf(-range) : 0);
        }
    }
}

/// One thread per part of a row's list.
template <int parts>
__global__ void __launch_bounds__(threads) make_entries_kernel(
        int64_t first,
        int64_t rows,
        const ListOutput lists,
        const float* __restrict__ cut,
        const uint64_t* __restrict__ places,
        uint32_t* __restrict__ entry_rows,
        uint32_t* __restrict__ keys) {
    const int64_t i =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / parts;
    const int64_t row = first + i;
    const bool real = i < rows;
    const int part = threadIdx.x % parts;
    const int shift = threadIdx.x % 32 / parts * parts;
    const uint64_t base = places[first] & RowPlace::entries_mask;
    uint64_t at = 0, end = 0;
    if (real) {
        at = (places[row] & RowPlace::entries_mask) - base;
        end = (places[row + 1] & RowPlace::entries_mask) - base;
    }
    // dense rows have no entries
    const int count =
            at < end ? lists.counts[row * list_parts + part] : 0;
    const float least = at < end ? cut[row] : 0;
    const Listed* listed =
            lists.listed + row * list_capacity + part * (list_capacity / parts);
    for (int j = 0; __any_sync(0xffffffff, j < count); j++) {
        Listed c = {0, 0};
        bool kept = false;
        if (j < count) {
            c = listed[j];
            kept = !(c.score < least);
        }
        // the kept ones of the row's threads come one after the other
        const uint32_t mask = __ballot_sync(0xffffffff, kept) >> shift &
                ((1u << parts) - 1);
        if (kept) {
            const uint64_t e = at + __popc(mask & ((1u << part) - 1));
            entry_rows[e] = row;
            keys[e] = c.component;
        }
        at += __popc(mask);
    }
}

} // namespace

size_t row_places_temp_bytes(int64_t n) {
    size_t bytes = 0;
    uint64_t* places = nullptr;
    cub::DeviceScan::ExclusiveSum(nullptr, bytes, places, places, n + 1);
    return bytes;
}

cudaError_t launch_filter_rows(
        int64_t n,
        int k,
        int parts,
        float range,
        float most_drop,
        const ListOutput& lists,
        const RowLimit* limits,
        uint64_t* places,
        float* cut,
        float* dropped,
        cudaStream_t stream) {
    const auto kernel =
            parts == 4 ? filter_rows_kernel<4> : filter_rows_kernel<8>;
    kernel<<<blocks_for((n + 1) * parts), threads, 0, stream>>>(
            n,
            k,
            range,
            most_drop,
            lists,
            limits,
            places,
            cut,
            dropped);
    return cudaGetLastError();
}

cudaError_t launch_row_places(
        int64_t n,
        uint64_t* places,
        void* temp,
        size_t temp_bytes,
        cudaStream_t stream) {
    return cub::DeviceScan::ExclusiveSum(
            temp, temp_bytes, places, places, n + 1, stream);
}

cudaError_t launch_make_entries(
        int64_t first,
        int64_t rows,
        int parts,
        const ListOutput& lists,
        const float* cut,
        const uint64_t* places,
        const EntryArrays& arrays,
        cudaStream_t stream) {
    const auto kernel =
            parts == 4 ? make_entries_kernel<4> : make_entries_kernel<8>;
    kernel<<<blocks_for(rows * parts), threads, 0, stream>>>(
            first, rows, lists, cut, places, arrays.rows, arrays.keys);
    return cudaGetLastError();
}

} // namespace faiss_flash
