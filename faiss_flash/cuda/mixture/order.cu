// Rows of a block in the order of their best components.

#include <cub/device/device_radix_sort.cuh>

#include <faiss_flash/cuda/mixture/tiles.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

__global__ void make_keys_kernel(
        TileShape shape,
        int k,
        const uint32_t* __restrict__ components,
        uint32_t* __restrict__ keys,
        uint32_t* __restrict__ numbers) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < shape.n) {
        const uint32_t block = uint32_t(i) / uint32_t(shape.block_rows);
        keys[i] = block * k + components[i];
        numbers[i] = uint32_t(i) - block * uint32_t(shape.block_rows);
    }
}

/// Arrays of launch_order_rows in its scratch.
struct Layout {
    uint32_t *keys, *sorted, *numbers;
    void* temp;
    size_t temp_bytes, bytes;
};

int key_bits(const TileShape& shape, int k) {
    int bits = 1;
    while (bits < 32 && (int64_t(1) << bits) < shape.blocks() * k) {
        bits++;
    }
    return bits;
}

Layout lay_out(const TileShape& shape, int k, void* base) {
    Layout l;
    const size_t array = (shape.n * sizeof(uint32_t) + 255) / 256 * 256;
    uint8_t* at = static_cast<uint8_t*>(base);
    l.keys = reinterpret_cast<uint32_t*>(at);
    l.sorted = reinterpret_cast<uint32_t*>(at + array);
    l.numbers = reinterpret_cast<uint32_t*>(at + 2 * array);
    l.temp = at + 3 * array;
    l.temp_bytes = 0;
    cub::DeviceRadixSort::SortPairs(
            nullptr,
            l.temp_bytes,
            l.keys,
            l.sorted,
            l.numbers,
            l.numbers,
            shape.n,
            0,
            key_bits(shape, k));
    l.bytes = 3 * array + l.temp_bytes;
    return l;
}

} // namespace

size_t order_scratch_bytes(const TileShape& shape, int k) {
    return lay_out(shape, k, nullptr).bytes;
}

cudaError_t launch_order_rows(
        const TileShape& shape,
        int k,
        const uint32_t* components,
        uint32_t* order,
        void* scratch,
        cudaStream_t stream) {
    Layout l = lay_out(shape, k, scratch);
    make_keys_kernel<<<blocks_for(shape.n), threads, 0, stream>>>(
            shape, k, components, l.keys, l.numbers);
    return cub::DeviceRadixSort::SortPairs(
            l.temp,
            l.temp_bytes,
            l.keys,
            l.sorted,
            l.numbers,
            order,
            shape.n,
            0,
            key_bits(shape, k),
            stream);
}

} // namespace faiss_flash
