// Σ r·x of many dense rows as a product of two matrices, shares and rows, with
// mma.sync.

#include <faiss_flash/cuda/mixture/dense_products.cuh>
#include <faiss_flash/cuda/ptx/mma.cuh>

namespace faiss_flash {

namespace {

constexpr int step_rows = 64;
constexpr int flush_rows = 1024; ///< that are summed in single precision
constexpr int tile = 128; ///< components, and columns, of a thread block
constexpr int stride = tile + 8; ///< halves; rows 16 bytes apart in banks

struct SumShared { // or 128 × 128 sums
    /// high and low, times dense_share_scale
    __half shares[2][step_rows][stride];
    __half x[2][step_rows][stride];      ///< high and low
    float count[4][tile], energy[4][tile];
};

/// Four 8×8 half matrices, transposed; lane l gives the address of one row.
__device__ inline void load_transposed_x4(uint32_t (&m)[4], const void* row) {
    asm volatile(
            "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
            "{%0, %1, %2, %3}, [%4];"
            : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
            : "r"(ptx::shared_address(row))
            : "memory");
}

/// 128 components × 128 columns of Σ r·x over one piece. 8 warps, 4 along
/// the components × 2 along the columns, 32 × 64 each.
__global__ void __launch_bounds__(256, 2) dense_product_sums_kernel(
        const MixtureRowsInput in,
        const DenseProducts products,
        const DenseScratch scratch,
        const MixtureRowsOutput out) {
    extern __shared__ uint4 raw[];
    SumShared& shared = *reinterpret_cast<SumShared*>(raw);
    const uint32_t count_rows = scratch.pieces[blockIdx.z].count;
    const uint32_t first = blockIdx.z * products.piece_rows;
    const int component0 = blockIdx.x * tile, column0 = blockIdx.y * tile;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp % 4, warp_n = warp / 4;
    // shares: two components and 16 of the step's rows a thread
    const int my_component = threadIdx.x % 64 * 2;
    const int my_rows = threadIdx.x / 64;
    float log_scale[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int c = component0 + my_component + e;
        const bool real = c < in.k;
        log_scale[e] = real ? in.components[c].log_scale : 0;
    }
    float count[2] = {}, energy[2] = {};
    uint32_t kept = 0;
    float acc[2][8][4];
    double* const partial =
            scratch.partial + (int64_t)blockIdx.z * in.k * in.d;
    for (uint32_t i0 = 0; i0 < count_rows; i0 += step_rows) {
        if (i0 % flush_rows == 0) {
#pragma unroll
            for (int i = 0; i < 64; i++) {
                acc[i / 32][i / 4 % 8][i % 4] = 0;
            }
        }
        // high and low parts of 64 rows × 128 columns, 16 bytes at a time
#pragma unroll 1 // addresses of all eight are too many registers
        for (int u = 0; u < 8; u++) {
            const int unit = threadIdx.x + u * 256;
            const int part = unit / 1024, r = unit / 16 % 64;
            const int column = unit % 16 * 8;
            const bool there = i0 + r < count_rows &&
                    column0 + column < products.width;
            const __half* from = products.rows +
                    (int64_t)(first + i0 + r) * 3 * products.width +
                    part * products.width + column0 + column;
            ptx::copy_async_16(
                    &shared.x[part][r][column],
                    there ? from : products.rows,
                    there);
        }
        ptx::copy_async_commit();
#pragma unroll 2
        for (int r = my_rows * 16; r < my_rows * 16 + 16; r++) {
            const bool there = i0 + r < count_rows;
            const int64_t row = first + i0 + r;
            float2 score = make_float2(-INFINITY, -INFINITY);
            float log_density = 0;
            if (there) {
                log_density = products.log_density[row];
                score = *reinterpret_cast<const float2*>(
                        products.scores + row * products.k_padded +
                        component0 + my_component);
            }
            const float share[2] = {
                    __expf(score.x - log_density),
                    __expf(score.y - log_density)};
            const float scores[2] = {score.x, score.y};
            __half high[2], low[2];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                count[e] += share[e];
                if (share[e] > 0) {
                    energy[e] +=
                            share[e] * fmaxf(log_scale[e] - scores[e], 0);
                }
                kept += share[e] >= dense_least_share;
                const float scaled = share[e] * dense_share_scale;
                high[e] = __float2half_rn(scaled);
                low[e] = __float2half_rn(scaled - __half2float(high[e]));
            }
            *reinterpret_cast<__half2*>(&shared.shares[0][r][my_component]) =
                    __halves2half2(high[0], high[1]);
            *reinterpret_cast<__half2*>(&shared.shares[1][r][my_component]) =
                    __halves2half2(low[0], low[1]);
        }
        ptx::copy_async_wait<0>();
        __syncthreads(); // shares and rows are there
#pragma unroll
        for (int k0 = 0; k0 < step_rows; k0 += 16) {
            uint32_t a[2][2][4]; // high and low, two groups of 16 components
            const int a_row = k0 + lane / 16 * 8 + lane % 8;
            const int a_column = warp_m * 32 + lane / 8 % 2 * 8;
#pragma unroll
            for (int m = 0; m < 2; m++) {
                load_transposed_x4(
                        a[0][m], &shared.shares[0][a_row][a_column + 16 * m]);
                load_transposed_x4(
                        a[1][m], &shared.shares[1][a_row][a_column + 16 * m]);
            }
            const int b_row = k0 + lane / 8 % 2 * 8 + lane % 8;
            const int b_column = warp_n * 64 + lane / 16 * 8;
#pragma unroll
            for (int g = 0; g < 8; g += 2) {
                uint32_t high[4], low[4]; // two groups of 8 columns
                load_transposed_x4(
                        high, &shared.x[0][b_row][b_column + 8 * g]);
                load_transposed_x4(
                        low, &shared.x[1][b_row][b_column + 8 * g]);
#pragma unroll
                for (int m = 0; m < 2; m++) {
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float(&to)[4] = acc[m][g + e];
                        ptx::mma_16x8x16(
                                to, a[0][m], high[2 * e], high[2 * e + 1]);
                        ptx::mma_16x8x16(
                                to, a[0][m], low[2 * e], low[2 * e + 1]);
                        ptx::mma_16x8x16(
                                to, a[1][m], high[2 * e], high[2 * e + 1]);
                    }
                }
            }
        }
        __syncthreads(); // nobody reads shares and rows any more
        if ((i0 + step_rows) % flush_rows != 0 &&
            i0 + step_rows < count_rows) {
            continue;
        }
        // through shared memory: addresses of all at once are too many
        float* sums = reinterpret_cast<float*>(raw);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int c = warp_m * 32 + i * 8 + lane / 4;
#pragma unroll
            for (int g = 0; g < 8; g++) {
                const int column = warp_n * 64 + g * 8 + 2 * (lane % 4);
                *reinterpret_cast<float2*>(sums + c * tile + column) =
                        make_float2(
                                acc[i / 2][g][2 * (i % 2)],
                                acc[i / 2][g][2 * (i % 2) + 1]);
            }
        }
        __syncthreads(); // sums are there
        const int column = column0 + threadIdx.x % tile;
        for (int c = threadIdx.x / tile; c < tile; c += 256 / tile) {
            if (component0 + c < in.k && column < in.d) {
                double& sum =
                        partial[(int64_t)(component0 + c) * in.d + column];
                sum = (i0 < flush_rows ? 0 : sum) +
                        sums[c * tile + threadIdx.x % tile] /
                                (double)dense_share_scale;
            }
        }
        __syncthreads(); // sums have been read
    }
#pragma unroll
    for (int e = 0; e < 2; e++) {
        shared.count[my_rows][my_component + e] = count[e];
        shared.energy[my_rows][my_component + e] = energy[e];
    }
    __syncthreads(); // every thread's counts are there
    auto total = [](const float (&of)[4][tile], int c) {
        return (double)of[0][c] + of[1][c] + of[2][c] + of[3][c];
    };
    if (blockIdx.y == 0) {
        const int c = threadIdx.x;
        if (c < tile && component0 + c < in.k) {
            double* scalars = scratch.scalars + (int64_t)blockIdx.z * 2 * in.k;
            scalars[component0 + c] = total(shared.count, c);
            scalars[in.k + component0 + c] = total(shared.energy, c) /
                    in.components[component0 + c].precision;
        }
        kept = __reduce_add_sync(0xffffffff, kept);
        if (lane == 0) {
            atomicAdd(&out.totals->entries, (unsigned long long)kept);
        }
    }
}

} // namespace

cudaError_t launch_dense_sums_sm80(
        const MixtureRowsInput& in,
        int pieces,
        const DenseProducts& products,
        const DenseScratch& scratch,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    const int bytes = sizeof(SumShared);
    const cudaError_t error = cudaFuncSetAttribute(
            dense_product_sums_kernel,
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const dim3 grid(
            products.k_padded / tile,
            (in.d + tile - 1) / tile,
            pieces);
    dense_product_sums_kernel<<<grid, 256, bytes, stream>>>(
            in, products, scratch, out);
    return cudaGetLastError();
}

} // namespace faiss_flash
