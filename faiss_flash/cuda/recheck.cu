#include <faiss_flash/cuda/recheck.cuh>
#include <faiss_flash/cuda/rows_view.cuh>
#include <faiss_flash/cuda/tile_sm80.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

/// Shared memory of a block: operands in flight, and the candidates found so
/// far of its rows (a shared counter costs far less than one in memory).
struct ListShared {
    sm80::Stage stage[sm80::stages];
    uint32_t count[sm80_rows];
    uint32_t candidates[sm80_rows][recheck_capacity];
};

__global__ void __launch_bounds__(sm80_threads, 2) list_candidates_kernel(
        const PreparedRows rows,
        const PreparedCentroids centroids,
        const AssignOutput out,
        const RecheckScratch scratch) {
    extern __shared__ uint4 raw[];
    ListShared& shared = *reinterpret_cast<ListShared*>(raw);
    const int64_t n = *out.n_unproved;
    const float beta = centroids.terms->beta;
    // few rows: the centroids are shared out too, to fill the device
    const int64_t row_blocks = (n + sm80_rows - 1) / sm80_rows;
    const int tiles = centroids.k_padded / assign_columns;
    const int parts = row_blocks >= gridDim.x
            ? 1
            : min((int64_t)tiles, 2 * gridDim.x / max(row_blocks, (int64_t)1));
    for (int64_t item = blockIdx.x; item < row_blocks * parts;
         item += gridDim.x) {
        const int64_t first = item / parts * sm80_rows;
        const int part = item % parts;
        const Sm80Lane at;
        float threshold[2][2];
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int high = 0; high < 2; high++) {
                const int64_t i = first + at.row(m, high);
                // rows past the end list nothing
                threshold[m][high] =
                        i < n ? out.threshold[out.unproved[i]] : -INFINITY;
            }
        }
        if (threadIdx.x < sm80_rows) {
            shared.count[threadIdx.x] = 0;
        }
        __syncthreads(); // counts are cleared before anyone adds
        for_each_tile_sm80(
                shared.stage,
                centroids,
                tiles * part / parts,
                tiles * (part + 1) / parts,
                rows.d_padded,
                [&](int r) {
                    return first + r < n ? rows.halves +
                                    (int64_t)out.unproved[first + r] *
                                            rows.d_padded
                                         : nullptr;
                },
                [&](int tile, float(&acc)[2][8][4], const Sm80Lane& lane) {
                    const float* alpha =
                            centroids.alpha + tile * assign_columns;
#pragma unroll
                    for (int m = 0; m < 2; m++) {
#pragma unroll
                        for (int g = 0; g < 8; g++) {
#pragma unroll
                            for (int e = 0; e < 4; e++) {
                                const int column = lane.column(g, e % 2);
                                const float score =
                                        fmaf(beta,
                                             acc[m][g][e],
                                             __ldg(alpha + column));
                                // written so that NaN lists the centroid
                                if (!(score > threshold[m][e / 2]) &&
                                    tile * assign_columns + column <
                                            centroids.k) {
                                    const int r = lane.row(m, e / 2);
                                    const uint32_t slot =
                                            atomicAdd(&shared.count[r], 1u);
                                    if (slot < recheck_capacity) {
                                        shared.candidates[r][slot] =
                                                tile * assign_columns + column;
                                    }
                                }
                            }
                        }
                    }
                });
        // the loop above ended with a barrier: lists are complete
        if (threadIdx.x < sm80_rows && first + threadIdx.x < n) {
            const int64_t i = first + threadIdx.x;
            const uint32_t count = shared.count[threadIdx.x];
            if (count > 0) {
                const uint32_t slot = atomicAdd(scratch.counts + i, count);
                for (uint32_t j = 0; j < count && slot + j < recheck_capacity;
                     j++) {
                    scratch.candidates[i * recheck_capacity + slot + j] =
                            shared.candidates[threadIdx.x][j];
                }
            }
        }
        __syncthreads(); // counts may be cleared again
    }
}

/// ‖x − c‖², or −x·c, in double precision by a whole warp; every lane gets
/// the same value.
template <class T>
__device__ double exact_score(const T* x, const float* c, int d, bool l2) {
    double sum = 0;
    for (int j = threadIdx.x % 32; j < d; j += 32) {
        const double a = to_float(x[j]), b = c[j];
        sum += l2 ? (a - b) * (a - b) : -a * b;
    }
    return warp_sum(sum);
}

template <class T>
__global__ void settle_kernel(
        int d,
        int k,
        bool l2,
        const AssignOutput out,
        const T* x,
        const float* original,
        const RecheckScratch scratch) {
    const int64_t n = *out.n_unproved;
    const int64_t warps = (int64_t)gridDim.x * blockDim.x / 32;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
         i < n;
         i += warps) {
        const uint32_t row = out.unproved[i];
        const int count = scratch.counts[i];
        const bool all = count > recheck_capacity || count == 0;
        double best = INFINITY;
        uint32_t label = out.labels[row];
        for (int j = 0; j < (all ? k : count); j++) {
            const uint32_t c =
                    all ? j : scratch.candidates[i * recheck_capacity + j];
            const double score = exact_score(
                    x + (int64_t)row * d, original + (int64_t)c * d, d, l2);
            if (score < best || (score == best && c < label)) {
                best = score;
                label = c;
            }
        }
        if (threadIdx.x % 32 == 0) {
            out.labels[row] = label;
            scratch.counts[i] = 0; // for the next time
        }
    }
}

} // namespace

cudaError_t launch_recheck(
        const PreparedRows& rows,
        const PreparedCentroids& centroids,
        const AssignOutput& out,
        const DeviceVectors& x,
        const float* original,
        const RecheckScratch& scratch,
        int multiprocessors,
        cudaStream_t stream) {
    const cudaError_t error = cudaFuncSetAttribute(
            list_candidates_kernel,
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            sizeof(ListShared));
    if (error != cudaSuccess) {
        return error;
    }
    list_candidates_kernel<<<
            2 * multiprocessors,
            sm80_threads,
            sizeof(ListShared),
            stream>>>(rows, centroids, out, scratch);
    with_type(x, [&](auto* vectors) {
        settle_kernel<<<8 * multiprocessors, 256, 0, stream>>>(
                rows.d,
                centroids.k,
                centroids.l2,
                out,
                vectors,
                original,
                scratch);
    });
    return cudaGetLastError();
}

} // namespace faiss_flash
