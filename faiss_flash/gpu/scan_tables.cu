#include <algorithm>

#include <faiss_flash/gpu/scan_lists.h>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int most_subspaces = 88; // 88 KiB of tables
/// Of lists: as long as a table; measurements in README.md.
constexpr int least_mean_size = 256;
/// A block's share of a list is at least this, for its table's sake.
constexpr int least_share = 512;

/// table[m·256 + code], m the subspace: its part of the score.
template <bool inner_product>
__device__ void fill_table(
        const ListsView& lists,
        int list,
        const float* x,
        float* table) {
    const int dsub = lists.pq_dsub;
    const int subspaces = lists.d / dsub;
    // one code per thread: all of a warp read the same components
    for (int at = threadIdx.x; at < 256 * subspaces; at += threads) {
        const int dim = at / 256 * dsub;
        const float* entry = lists.codebook + (int64_t)at * dsub;
        const float* centroid = lists.centroids
                ? lists.centroids + (int64_t)list * lists.d + dim
                : nullptr;
        float sum = 0;
        for (int i = 0; i < dsub; i++) {
            const float v = entry[i] + (centroid ? centroid[i] : 0.0f);
            const float a = inner_product ? -x[dim + i] : x[dim + i] - v;
            sum = fmaf(a, inner_product ? v : a, sum);
        }
        table[at] = sum;
    }
}

/// blockIdx.x: pair, blockIdx.y: share of the list
template <bool inner_product>
__global__ void __launch_bounds__(threads) scan_tables_kernel(
        ListsView lists,
        ProbesView probes,
        const float* __restrict__ x,
        float* __restrict__ scores) {
    extern __shared__ float table[];
    const int64_t pair = blockIdx.x;
    const int list = probes.lists[pair];
    if (list < 0) {
        return;
    }
    const int64_t query = pair / probes.nprobe;
    const int64_t begin = lists.begins[list];
    const int64_t size = lists.begins[list + 1] - begin;
    const int64_t share = max(
            (int64_t)least_share, (size + gridDim.y - 1) / gridDim.y);
    const int64_t first = blockIdx.y * share;
    const int64_t last = min(size, first + share);
    if (first >= last) {
        return;
    }
    fill_table<inner_product>(lists, list, x + query * lists.d, table);
    __syncthreads(); // the table is there
    float* to = scores + query * probes.stride + probes.places[pair];
    const int subspaces = lists.code_size;
    for (int64_t i = first + threadIdx.x; i < last; i += threads) {
        const uint8_t* code = lists.codes + (begin + i) * subspaces;
        float sum = 0;
        int m = 0;
        if (subspaces % 4 == 0) {
            for (; m < subspaces; m += 4) {
                const uint32_t word =
                        *reinterpret_cast<const uint32_t*>(code + m);
                const float* part = table + m * 256;
                sum += part[word & 255];
                sum += part[256 + (word >> 8 & 255)];
                sum += part[512 + (word >> 16 & 255)];
                sum += part[768 + (word >> 24)];
            }
        } else {
            for (; m < subspaces; m++) {
                sum += table[m * 256 + code[m]];
            }
        }
        to[i] = sum;
    }
}

} // namespace

bool scans_by_tables(const ListsView& lists) {
    return lists.kind == CodeKind::pq8 && lists.code_size <= most_subspaces &&
            lists.entries >= (int64_t)least_mean_size * lists.nlist;
}

cudaError_t scan_tables(
        const ListsView& lists,
        const ProbesView& probes,
        const float* x,
        bool inner_product,
        float* scores,
        cudaStream_t stream) {
    int device = 0, multiprocessors = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(
            &multiprocessors, cudaDevAttrMultiProcessorCount, device);
    const int64_t pairs = probes.n * probes.nprobe;
    const int64_t shares = std::clamp<int64_t>(
            8 * multiprocessors / pairs, 1, lists.longest / least_share + 1);
    const int bytes = lists.code_size * 256 * (int)sizeof(float);
    const auto kernel = inner_product ? scan_tables_kernel<true>
                                      : scan_tables_kernel<false>;
    if (bytes > 48 << 10) {
        const cudaError_t error = cudaFuncSetAttribute(
                kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        if (error != cudaSuccess) {
            return error;
        }
    }
    kernel<<<dim3(pairs, std::min<int64_t>(shares, 65535)),
             threads,
             bytes,
             stream>>>(lists, probes, x, scores);
    return cudaGetLastError();
}

} // namespace faiss_flash
