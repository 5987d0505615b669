// Partial sums of tiles, and wide rows, to statistics.

#include <faiss_flash/cuda/mixture_pairs.cuh>
#include <faiss_flash/cuda/mixture_tiles.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

constexpr int warps = 16;
constexpr int threads = 32 * warps;
constexpr int slice = 128; ///< columns, four a thread
/// Tiles of a block of rows that a warp adds up; the next ones are another's.
constexpr int part_tiles = 256;
constexpr int tiles_at_once = 128;
static_assert(part_tiles % tiles_at_once == 0);

struct CombineShared {
    uint32_t found[warps][tiles_at_once]; ///< items
    double sums[warps][slice + 2];        ///< and count, energy
};

/// What a warp adds up.
struct WarpSums {
    double sums[4] = {}; ///< of the thread's columns
    float count = 0, energy = 0; ///< of the few items that it read

    __device__ void add(const float4& v) {
        sums[0] += v.x;
        sums[1] += v.y;
        sums[2] += v.z;
        sums[3] += v.w;
    }
};

/// share · row, rounded as the first term of a tile's sum is.
__device__ inline float4 scaled(float share, const float4& v) {
    return make_float4(share * v.x, share * v.y, share * v.z, share * v.w);
}

/// One component's items, in this warp's slice of columns.
template <bool aligned>
struct ItemSums {
    const MixtureRowsInput& in;
    const TileItems& items;
    int column; ///< of the thread

    /// Σ share · row of an item without a vector, as its tile would have
    /// added it up.
    __device__ float4 links(uint32_t at, uint32_t rows) const {
        const TileLink* links =
                reinterpret_cast<const TileLink*>(items.items + at);
        float4 sum = make_float4(0, 0, 0, 0);
        for (uint32_t l = 0; l < rows; l++) {
            const TileLink link = links[l];
            const float4 v = load_four<aligned>(
                    row(link.row), column, in.d);
            sum.x = fmaf(link.share, v.x, sum.x);
            sum.y = fmaf(link.share, v.y, sum.y);
            sum.z = fmaf(link.share, v.z, sum.z);
            sum.w = fmaf(link.share, v.w, sum.w);
        }
        return sum;
    }

    /// Up to 32 items, one a lane, in the order of lanes.
    __device__ __forceinline__ void
    add(const TileItem& mine, int count, WarpSums& to) const {
        to.count += mine.count;
        to.energy += mine.energy;
        const bool vector = mine.rows == TileItem::vector;
        const bool linked = mine.rows > 1 && !vector;
        if (__any_sync(0xffffffff, linked)) {
            for (int i = 0; i < count; i++) {
                const uint32_t rows = __shfl_sync(0xffffffff, mine.rows, i);
                const uint32_t at = __shfl_sync(0xffffffff, mine.at, i);
                const float share = __shfl_sync(0xffffffff, mine.count, i);
                to.add(rows == TileItem::vector ? vector_of(at)
                               : rows == 1
                               ? scaled(share, row_of(at))
                               : links(at, rows));
            }
            return;
        }
        // one kind of address and one factor for rows and vectors
        const float* from = vector
                ? items.vectors + (int64_t)mine.at * items.stride
                : row(mine.at);
        const float share = vector ? 1 : mine.count;
        const auto address = reinterpret_cast<unsigned long long>(from);
#pragma unroll(aligned ? 4 : 1)
        for (int i = 0; i < count; i++) {
            const float* row = reinterpret_cast<const float*>(
                    __shfl_sync(0xffffffff, address, i));
            to.add(scaled(
                    __shfl_sync(0xffffffff, share, i),
                    load_four<aligned>(row, column, in.d)));
        }
    }

   private:
    __device__ const float* row(uint32_t at) const {
        return element<aligned ? 4 : 1>(in.x, at);
    }
    __device__ float4 row_of(uint32_t at) const {
        return load_four<aligned>(row(at), column, in.d);
    }
    __device__ float4 vector_of(uint32_t at) const {
        return load_four<aligned>(
                items.vectors + (int64_t)at * items.stride, column, in.d);
    }
};

/// One warp: one component's items of some tiles.
template <bool aligned>
__device__ void add_tiles(
        const ItemSums<aligned>& sums,
        int tiles,
        int first,
        int end,
        MaskBit at,
        uint32_t* found,
        WarpSums& to) {
    const int lane = threadIdx.x % 32;
    const uint32_t* bits = sums.items.bits + (int64_t)at.word * tiles;
    const uint32_t* firsts = sums.items.first + (int64_t)at.word * tiles;
    for (int t0 = first; t0 < end; t0 += tiles_at_once) {
        constexpr int rounds = tiles_at_once / 32;
        uint32_t some[rounds];
#pragma unroll
        for (int i = 0; i < rounds; i++) {
            const int t = t0 + 32 * i + lane;
            some[i] = t < end ? __ldg(bits + t) : 0;
        }
        int count = 0;
#pragma unroll
        for (int i = 0; i < rounds; i++) {
            const bool has = some[i] >> at.bit & 1;
            const uint32_t mask = __ballot_sync(0xffffffff, has);
            if (has) {
                found[count + __popc(mask & bits_below(lane))] =
                        __ldg(firsts + t0 + 32 * i + lane) +
                        __popc(some[i] & bits_below(at.bit));
            }
            count += __popc(mask);
        }
        __syncwarp(); // the items are found
        for (int i = 0; i < count; i += 32) {
            TileItem mine = {0, 0, 0, 0};
            if (i + lane < count) {
                mine = sums.items.items[found[i + lane]];
            }
            sums.add(mine, min(32, count - i), to);
        }
        __syncwarp(); // `found` has been read
    }
}

/// One warp: one component's shares of a block's wide rows.
template <bool aligned>
__device__ void add_wide(
        const ItemSums<aligned>& sums,
        const WideRows& wide,
        int64_t block,
        int component,
        uint32_t* found,
        WarpSums& to) {
    const int count = wide.counts[block].x;
    if (count > wide.most) {
        return; // dense
    }
    const uint32_t* rows = wide.rows + block * sums.in.block_rows;
    const float2* shares =
            wide.shares + block * wide.most * sums.in.k + component;
    for (int i0 = 0; i0 < count; i0 += 32) {
        const int i = i0 + threadIdx.x % 32;
        float2 share = make_float2(0, 0);
        if (i < count) {
            share = shares[(int64_t)i * sums.in.k];
        }
        const uint32_t mask = __ballot_sync(0xffffffff, share.x > 0);
        const int some = __popc(mask), lane = threadIdx.x % 32;
        if (share.x > 0) {
            // those that have a share to the first lanes
            const int at = __popc(mask & bits_below(lane));
            found[at] = rows[i] * (uint32_t)(sums.in.d / (aligned ? 4 : 1));
            found[32 + at] = __float_as_uint(share.x);
            found[64 + at] = __float_as_uint(share.y);
        }
        __syncwarp(); // the items are there
        TileItem mine = {0, 0, 0, 0};
        if (lane < some) {
            mine = {found[lane],
                    1,
                    __uint_as_float(found[32 + lane]),
                    __uint_as_float(found[64 + lane])};
        }
        __syncwarp(); // and read
        sums.add(mine, some, to);
    }
}

/// One component, and 128 columns, a thread block; a part of a block of rows
/// a warp.
template <bool aligned>
__global__ void __launch_bounds__(threads, 2) combine_tiles_kernel(
        const MixtureRowsInput in,
        const TileItems items,
        const WideRows wide,
        const DeviceStatistics out) {
    extern __shared__ double raw[];
    CombineShared& s = *reinterpret_cast<CombineShared*>(raw);
    const TileShape shape = {in.n, in.block_rows};
    const int component = blockIdx.x, column0 = blockIdx.y * slice;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const ItemSums<aligned> columns = {in, items, column0 + 4 * lane};
    const int tiles = shape.tiles(), of_block = shape.tiles_per_block();
    // block_rows is a power of two: parts end where blocks do
    const int part = min(part_tiles, of_block);
    for (int first0 = 0; first0 < tiles; first0 += warps * part) {
        const int first = first0 + warp * part;
        if (first < tiles) {
            WarpSums sums;
            add_tiles(
                    columns,
                    tiles,
                    first,
                    min(first + part, tiles),
                    MaskBit::of(component),
                    s.found[warp],
                    sums);
            if (first % of_block == 0) {
                add_wide(
                        columns,
                        wide,
                        first / of_block,
                        component,
                        s.found[warp],
                        sums);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s.sums[warp][4 * lane + e] = sums.sums[e];
            }
            const double count = warp_sum((double)sums.count);
            const double energy = warp_sum((double)sums.energy);
            if (lane == 0) {
                s.sums[warp][slice] = count;
                s.sums[warp][slice + 1] = energy;
            }
        }
        __syncthreads(); // these parts are added up
        // one value a thread: a column's sum, the count, the energy
        const int t = threadIdx.x;
        double* to = nullptr;
        if (t < slice) {
            to = column0 + t < in.d
                    ? out.sums + (int64_t)component * in.d + column0 + t
                    : nullptr;
        } else if (t < slice + 2 && blockIdx.y == 0) {
            to = (t == slice ? out.counts : out.energy) + component;
        }
        if (to) {
            double total = *to;
            for (int w = 0; w < warps && first0 + w * part < tiles; w++) {
                total += s.sums[w][t];
            }
            *to = total;
        }
        __syncthreads(); // and their sums read
    }
}

template <bool aligned>
cudaError_t launch(
        const MixtureRowsInput& in,
        const TileItems& items,
        const WideRows& wide,
        const DeviceStatistics& out,
        cudaStream_t stream) {
    const auto kernel = combine_tiles_kernel<aligned>;
    const int bytes = sizeof(CombineShared);
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const dim3 grid(in.k, (in.d + slice - 1) / slice);
    kernel<<<grid, threads, bytes, stream>>>(in, items, wide, out);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_combine_tiles(
        const MixtureRowsInput& in,
        const TileItems& items,
        const WideRows& wide,
        const DeviceStatistics& out,
        cudaStream_t stream) {
    const bool aligned = in.d % 4 == 0 &&
            reinterpret_cast<uintptr_t>(in.x) % 16 == 0;
    return aligned ? launch<true>(in, items, wide, out, stream)
                   : launch<false>(in, items, wide, out, stream);
}

} // namespace faiss_flash
