#include <algorithm>
#include <cmath>

#include <faiss_flash/cuda/double_double.cuh>
#include <faiss_flash/cuda/exact_sums.cuh>
#include <faiss_flash/cuda/rows_view.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

/// Its sums on the device, for the kernels.
struct ExactSums::Tables {
    const SumGrid* grid;
    uint32_t* off_grid;
    const int64_t* origin;
    int64_t* sums;
    int64_t* norms;
    int64_t* members;
};

namespace {

using Tables = ExactSums::Tables;

/// What before_ holds besides labels.
constexpr uint32_t never = 0xffffffff; ///< not added yet
constexpr uint32_t off_grid_bit = 0x80000000;

constexpr int threads = 256;
constexpr int limbs = 4;
constexpr int headroom = 6; ///< bits above the first rows' largest value

/// Bits that a row's largest value must have, of `bits` that sums leave to
/// one row: those of single precision and some, where there are so many, and
/// always 6 less than the first rows' largest value has.
int least_bits(int bits) {
    return std::min(26, bits - headroom - 6);
}

template <class T>
__global__ void
largest_kernel(int64_t count, const T* x, uint32_t* largest) {
    float most = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        most = fmaxf(most, fabsf(to_float(x[i])));
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, step));
    }
    if (threadIdx.x % 32 == 0) {
        atomicMax(largest, __float_as_uint(most)); // not negative: in order
    }
}

/// The grid, and the first row as its origin.
/// @param bits  of the largest |q| whose n-fold sum still fits
template <class T>
__global__ void grid_kernel(
        int d,
        int bits,
        int least,
        const uint32_t* largest,
        const T* x,
        SumGrid* grid,
        int64_t* origin) {
    int exponent = 0;
    frexp((double)__uint_as_float(*largest), &exponent); // largest < 2^exponent
    const int shift = bits - headroom - exponent;
    const double scale = ldexp(1.0, shift), most = ldexp(1.0, bits);
    for (int j = threadIdx.x; j < d; j += blockDim.x) {
        origin[j] = llrint(to_float(x[j]) * scale);
    }
    if (threadIdx.x == 0) {
        *grid = {scale, ldexp(1.0, -shift), most, ldexp(1.0, least), 0};
    }
}

__device__ void add_to(int64_t* at, int64_t value) {
    atomicAdd(
            reinterpret_cast<unsigned long long*>(at),
            static_cast<unsigned long long>(value));
}

__device__ unsigned __int128 warp_sum_128(unsigned __int128 value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const uint64_t low = __shfl_xor_sync(0xffffffff, (uint64_t)value, step);
        const uint64_t high =
                __shfl_xor_sync(0xffffffff, (uint64_t)(value >> 64), step);
        value += (unsigned __int128)high << 64 | low;
    }
    return value;
}

/// One warp looks at 32 rows and moves those whose label is another now.
template <class T>
__global__ void move_rows_kernel(
        int64_t n,
        int d,
        const T* __restrict__ x,
        const uint32_t* __restrict__ labels,
        uint32_t* __restrict__ before,
        const Tables tables) {
    const int lane = threadIdx.x % 32;
    const int64_t first =
            ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32 * 32;
    const int64_t i = first + lane;
    const uint32_t my_label = i < n ? labels[i] : 0;
    const uint32_t my_before = i < n ? before[i] : 0;
    uint32_t moved = __ballot_sync(
            0xffffffff,
            i < n && (my_before == never ||
                      (my_before & ~off_grid_bit) != my_label));
    if (moved == 0) {
        return;
    }
    const SumGrid grid = *tables.grid;
    while (moved != 0) {
        const int r = __ffs(moved) - 1;
        moved &= moved - 1;
        const uint32_t to = __shfl_sync(0xffffffff, my_label, r);
        const uint32_t from = __shfl_sync(0xffffffff, my_before, r);
        const T* row = x + (first + r) * d;
        bool off_grid = from != never && (from & off_grid_bit) != 0;
        unsigned __int128 norm = 0;
        if (!off_grid) {
            double most = 0;
#pragma unroll 4
            for (int j = lane; j < d; j += 32) {
                const double value = to_float(row[j]) * grid.scale;
                most = fmax(most, fabs(value));
                const int64_t q =
                        __double2ll_rn(value) - tables.origin[j];
                norm += (unsigned __int128)((__int128)q * q);
            }
            if (from == never) {
                const bool fits = most < grid.largest;
                const bool seen = most >= grid.least;
                off_grid = !__all_sync(0xffffffff, fits) ||
                        (!__any_sync(0xffffffff, seen) &&
                         __any_sync(0xffffffff, most > 0));
            }
        }
        if (lane == 0) {
            before[first + r] = off_grid ? to | off_grid_bit : to;
        }
        if (off_grid) {
            if (lane == 0 && from == never) {
                atomicAdd(tables.off_grid, 1u);
            }
            continue;
        }
#pragma unroll 4
        for (int j = lane; j < d; j += 32) {
            const int64_t q =
                    __double2ll_rn(to_float(row[j]) * grid.scale) -
                    tables.origin[j];
            add_to(tables.sums + (int64_t)to * d + j, q);
            if (from != never) {
                add_to(tables.sums + (int64_t)from * d + j, -q);
            }
        }
        norm = warp_sum_128(norm);
        if (lane < limbs) {
            const int64_t limb = (uint32_t)(norm >> (32 * lane));
            add_to(tables.norms + (int64_t)to * limbs + lane, limb);
            if (from != never) {
                add_to(tables.norms + (int64_t)from * limbs + lane, -limb);
            }
        } else if (lane == limbs) {
            add_to(tables.members + to, 1);
            if (from != never) {
                add_to(tables.members + from, -1);
            }
        }
    }
}

/// The rows off the grid, one after the other: one block, and nothing to do
/// as a rule.
template <class T>
__global__ void __launch_bounds__(threads) off_grid_kernel(
        int64_t n,
        int d,
        const T* __restrict__ x,
        const float* __restrict__ means,
        bool l2,
        const uint32_t* __restrict__ before,
        const SumGrid* grid,
        const DeviceStatistics out) {
    if (grid->off_grid == 0) {
        return;
    }
    __shared__ uint32_t label_of[threads];
    __shared__ double energy_of[threads / 32], product_of[threads / 32];
    for (int64_t first = 0; first < n; first += threads) {
        const int64_t i = first + threadIdx.x;
        const uint32_t mine = i < n ? before[i] : 0;
        const bool off = (mine & off_grid_bit) != 0;
        label_of[threadIdx.x] = off ? mine & ~off_grid_bit : never;
        if (__syncthreads_or(off) == 0) { // labels are there
            continue;
        }
        for (int r = 0; r < threads; r++) {
            const uint32_t label = label_of[r];
            if (label == never) {
                continue;
            }
            const T* row = x + (first + r) * d;
            const float* mean = means + (int64_t)label * d;
            double energy = 0, product = 0;
            for (int j = threadIdx.x; j < d; j += threads) {
                const double value = to_float(row[j]);
                const double step = value - mean[j];
                out.sums[(int64_t)label * d + j] += value;
                energy += step * step;
                product += value * mean[j];
            }
            energy = warp_sum(energy);
            product = warp_sum(product);
            if (threadIdx.x % 32 == 0) {
                energy_of[threadIdx.x / 32] = energy;
                product_of[threadIdx.x / 32] = product;
            }
            __syncthreads(); // every warp's part is there
            if (threadIdx.x == 0) {
                for (int w = 1; w < threads / 32; w++) {
                    energy += energy_of[w];
                    product += product_of[w];
                }
                out.counts[label] += 1;
                out.members[label] += 1;
                out.energy[label] += energy;
                out.products[label] += l2 ? energy : product;
            }
            __syncthreads(); // the parts may be written again
        }
        __syncthreads(); // labels may be written again
    }
}

__device__ DoubleDouble warp_sum_dd(DoubleDouble value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        // lanes add the two in the same order: the same bytes in both
        const DoubleDouble other = {
                __shfl_xor_sync(0xffffffff, value.high, step),
                __shfl_xor_sync(0xffffffff, value.low, step)};
        value = threadIdx.x & step ? other + value : value + other;
    }
    return value;
}

/// One warp per centroid.
__global__ void __launch_bounds__(threads) finish_kernel(
        int k,
        int d,
        const float* __restrict__ means,
        bool l2,
        const Tables tables,
        const DeviceStatistics out) {
    const int lane = threadIdx.x % 32;
    const int64_t c = ((int64_t)blockIdx.x * threads + threadIdx.x) / 32;
    if (c >= k) {
        return;
    }
    const SumGrid grid = *tables.grid;
    const int64_t count = tables.members[c];
    DoubleDouble sum2;
    double away = 0, product = 0;
    for (int j = lane; j < d; j += 32) {
        const int64_t sum = tables.sums[c * d + j];
        const int64_t origin = tables.origin[j];
        const double total = double(sum + count * origin) * grid.unit;
        const double mean = means[c * d + j];
        out.sums[c * d + j] += total;
        product += mean * total;
        const DoubleDouble exact = DoubleDouble::of(sum);
        sum2 = sum2 + DoubleDouble::product(exact, exact);
        const double step =
                count > 0 ? double(sum) / count - (mean * grid.scale - origin)
                          : 0;
        away += step * step;
    }
    sum2 = warp_sum_dd(sum2);
    away = warp_sum(away);
    product = warp_sum(product);
    if (lane > 0 || count == 0) {
        return;
    }
    DoubleDouble norm2;
    for (int limb = limbs - 1; limb >= 0; limb--) {
        norm2 = norm2.times_power(0x1p32) +
                DoubleDouble::of(tables.norms[c * limbs + limb]);
    }
    const DoubleDouble within = norm2 + -sum2.divided_by(count);
    const double energy = fmax(within.high + count * away, 0.0) * grid.unit *
            grid.unit;
    out.counts[c] += count;
    out.members[c] += count;
    out.energy[c] += energy;
    out.products[c] += l2 ? energy : product;
}

unsigned blocks_for(int64_t items) {
    return (items + threads - 1) / threads;
}

void clear(void* at, size_t bytes, int byte, cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(at, byte, bytes, stream));
}

} // namespace

ExactSums::ExactSums(int64_t n, int k, int d, cudaStream_t stream)
        : n_(n),
          k_(k),
          d_(d),
          grid_(1, stream),
          origin_(d, stream),
          sums_((size_t)k * d, stream),
          norms_((size_t)k * limbs, stream),
          members_(k, stream),
          before_(n, stream),
          largest_(1, stream) {}

ExactSums::Tables ExactSums::tables() const {
    return {grid_.get(),
            &grid_.get()->off_grid,
            origin_.get(),
            sums_.get(),
            norms_.get(),
            members_.get()};
}

size_t ExactSums::bytes(int64_t n, int k, int d) {
    return n * sizeof(uint32_t) +
            ((size_t)k * (d + limbs + 1) + d) * sizeof(int64_t);
}

void ExactSums::start(
        int64_t count,
        const DeviceVectors& x,
        cudaStream_t stream) {
    clear(largest_.get(), sizeof(uint32_t), 0, stream);
    clear(sums_.get(), (size_t)k_ * d_ * sizeof(int64_t), 0, stream);
    clear(norms_.get(), (size_t)k_ * limbs * sizeof(int64_t), 0, stream);
    clear(members_.get(), k_ * sizeof(int64_t), 0, stream);
    clear(before_.get(), n_ * sizeof(uint32_t), 0xff, stream);
    // |q| ≤ 2^bits with its origin: n of them stay below 2⁶²
    const int bits = 61 - (int)std::ceil(std::log2((double)n_ + 1));
    with_type(x, [&](auto* rows) {
        largest_kernel<<<1024, threads, 0, stream>>>(
                count * d_, rows, largest_.get());
        grid_kernel<<<1, threads, 0, stream>>>(
                d_,
                bits,
                least_bits(bits),
                largest_.get(),
                rows,
                grid_.get(),
                origin_.get());
    });
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
    started_ = true;
}

void ExactSums::add(
        int64_t i0,
        int64_t count,
        const DeviceVectors& x,
        const uint32_t* labels,
        const float* means,
        bool l2,
        const DeviceStatistics& out,
        cudaStream_t stream) {
    uint32_t* before = before_.get() + i0;
    with_type(x, [&](auto* rows) {
        move_rows_kernel<<<blocks_for(count), threads, 0, stream>>>(
                count, d_, rows, labels, before, tables());
        off_grid_kernel<<<1, threads, 0, stream>>>(
                count, d_, rows, means, l2, before, grid_.get(), out);
    });
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

void ExactSums::finish(
        const float* means,
        bool l2,
        const DeviceStatistics& out,
        cudaStream_t stream) const {
    finish_kernel<<<blocks_for((int64_t)k_ * 32), threads, 0, stream>>>(
            k_, d_, means, l2, tables(), out);
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

bool ExactSums::too_many_off_grid(cudaStream_t stream) const {
    uint32_t count = 0;
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            &count,
            &grid_.get()->off_grid,
            sizeof(count),
            cudaMemcpyDeviceToHost,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    return count > std::max<int64_t>(256, n_ / 1000);
}

} // namespace faiss_flash
