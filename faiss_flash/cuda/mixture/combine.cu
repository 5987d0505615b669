// Partial sums of tiles, and wide rows, to statistics.

#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/tiles.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

constexpr int warps = 16;
constexpr int threads = 32 * warps;
constexpr int slice = 128; ///< columns, four a thread
/// Tiles of a block of rows that a warp adds up; the next ones are another's.
constexpr int part_tiles = 256;

/// Sums of a slice, squares of it if diagonal, count, energy if not.
template <bool diagonal>
constexpr int slice_values = diagonal ? 2 * slice + 1 : slice + 2;

template <bool diagonal>
struct CombineShared {
    uint32_t found[warps][part_tiles]; ///< items
    double sums[warps][slice_values<diagonal>];
};

/// What a warp adds up.
struct WarpSums {
    double sums[4] = {};    ///< of the thread's columns
    double squares[4] = {}; ///< if diagonal
    float count = 0, energy = 0; ///< of the few items that it read

    __device__ void add(const float4& v) {
        sums[0] += v.x;
        sums[1] += v.y;
        sums[2] += v.z;
        sums[3] += v.w;
    }
    __device__ void add_squares(const float4& v) {
        squares[0] += v.x;
        squares[1] += v.y;
        squares[2] += v.z;
        squares[3] += v.w;
    }
};

/// share · row, rounded as the first term of a tile's sum is.
__device__ inline float4 scaled(float share, const float4& v) {
    return make_float4(share * v.x, share * v.y, share * v.z, share * v.w);
}

/// One component's items, in this warp's slice of columns.
template <bool aligned, bool diagonal>
struct ItemSums {
    const MixtureRowsInput& in;
    const TileItems& items;
    int column;        ///< of the thread
    const float* mean; ///< of the component

    /// Σ share · row of an item without a vector, as its tile would have
    /// added it up, and of the squares.
    __device__ void links(uint32_t at, uint32_t rows, WarpSums& to) const {
        const TileLink* links =
                reinterpret_cast<const TileLink*>(items.items + at);
        float4 sum = make_float4(0, 0, 0, 0), squares = sum;
        for (uint32_t l = 0; l < rows; l++) {
            const TileLink link = links[l];
            const float4 v = load_four<aligned>(
                    row_at(link.row), column, in.d);
            sum.x = fmaf(link.share, v.x, sum.x);
            sum.y = fmaf(link.share, v.y, sum.y);
            sum.z = fmaf(link.share, v.z, sum.z);
            sum.w = fmaf(link.share, v.w, sum.w);
            if constexpr (diagonal) {
                const float4 m = load_four<aligned>(mean, column, in.d);
                add_weighted_square(link.share, v, m, squares);
            }
        }
        to.add(sum);
        if constexpr (diagonal) {
            to.add_squares(squares);
        }
    }

    /// A vector, or a row, which counts with its share.
    __device__ __forceinline__ void
    add_one(const float* from, bool vector, float share, WarpSums& to) const {
        const float4 v = load_four<aligned>(from, column, in.d);
        to.add(scaled(share, v));
        if constexpr (diagonal) {
            // one load for both kinds
            const float4 second = load_four<aligned>(
                    vector ? from + items.stride / 2 : mean, column, in.d);
            float4 squares = make_float4(0, 0, 0, 0);
            add_weighted_square(share, v, second, squares);
            squares = vector ? second : squares;
            to.add_squares(squares);
        }
    }

    /// Up to 32 items, one a lane, in the order of lanes.
    __device__ __forceinline__ void
    add(const TileItem& mine, int count, WarpSums& to) const {
        to.count += mine.count;
        to.energy += mine.energy;
        const bool vector = mine.rows == TileItem::vector;
        const bool linked = mine.rows > 1 && !vector;
        const uint32_t vectors = __ballot_sync(0xffffffff, vector);
        if (__any_sync(0xffffffff, linked)) {
            for (int i = 0; i < count; i++) {
                const uint32_t rows = __shfl_sync(0xffffffff, mine.rows, i);
                const uint32_t at = __shfl_sync(0xffffffff, mine.at, i);
                const float share = __shfl_sync(0xffffffff, mine.count, i);
                if (rows == TileItem::vector) {
                    add_one(vector_at(at), true, 1, to);
                } else if (rows == 1) {
                    add_one(row_at(at), false, share, to);
                } else {
                    links(at, rows, to);
                }
            }
            return;
        }
        // one kind of address and one factor for rows and vectors
        const float* from = vector ? vector_at(mine.at) : row_at(mine.at);
        const float share = vector ? 1 : mine.count;
        const auto address = reinterpret_cast<unsigned long long>(from);
#pragma unroll(aligned ? 4 : 1)
        for (int i = 0; i < count; i++) {
            const float* row = reinterpret_cast<const float*>(
                    __shfl_sync(0xffffffff, address, i));
            add_one(row,
                    vectors >> i & 1,
                    __shfl_sync(0xffffffff, share, i),
                    to);
        }
    }

   private:
    __device__ const float* row_at(uint32_t at) const {
        return element<aligned ? 4 : 1>(in.x, at);
    }
    __device__ const float* vector_at(uint32_t at) const {
        return items.vectors + (int64_t)at * items.stride;
    }
};

/// One warp: one component's items of at most part_tiles tiles.
template <bool aligned, bool diagonal>
__device__ void add_tiles(
        const ItemSums<aligned, diagonal>& sums,
        int tiles,
        int first,
        int end,
        MaskBit at,
        uint32_t* found,
        WarpSums& to) {
    const int lane = threadIdx.x % 32;
    const uint32_t* bits = sums.items.bits + (int64_t)at.word * tiles;
    const uint32_t* firsts = sums.items.first + (int64_t)at.word * tiles;
    int count = 0;
#pragma unroll 1
    for (int t0 = first; t0 < end; t0 += 128) {
        constexpr int rounds = 4;
        uint32_t some[rounds];
#pragma unroll
        for (int i = 0; i < rounds; i++) {
            const int t = t0 + 32 * i + lane;
            some[i] = t < end ? __ldg(bits + t) : 0;
        }
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

/// One warp: one component's shares of a block's wide rows.
template <bool aligned, bool diagonal>
__device__ void add_wide(
        const ItemSums<aligned, diagonal>& sums,
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
template <bool aligned, bool diagonal>
__global__ void __launch_bounds__(threads, aligned && !diagonal ? 2 : 1)
        combine_tiles_kernel(
        const MixtureRowsInput in,
        const TileItems items,
        const WideRows wide,
        const DeviceStatistics out) {
    extern __shared__ double raw[];
    using Shared = CombineShared<diagonal>;
    Shared& s = *reinterpret_cast<Shared*>(raw);
    const TileShape shape = {in.n, in.block_rows};
    const int component = blockIdx.x, column0 = blockIdx.y * slice;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const ItemSums<aligned, diagonal> columns = {
            in,
            items,
            column0 + 4 * lane,
            in.means + (int64_t)component * in.d};
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
                if constexpr (diagonal) {
                    s.sums[warp][slice + 4 * lane + e] = sums.squares[e];
                }
            }
            const double count = warp_sum((double)sums.count);
            const double energy = warp_sum((double)sums.energy);
            if (lane == 0) {
                if constexpr (diagonal) {
                    s.sums[warp][2 * slice] = count;
                } else {
                    s.sums[warp][slice] = count;
                    s.sums[warp][slice + 1] = energy;
                }
            }
        }
        __syncthreads(); // these parts are added up
        // one value a thread: a column's sum, or squares, the count, the
        // energy
        const int t = threadIdx.x, j = column0 + t % slice;
        constexpr int columns_values = diagonal ? 2 * slice : slice;
        double* to = nullptr;
        if (t < columns_values) {
            to = j < in.d ? (t < slice ? out.sums : out.energy) +
                            (int64_t)component * in.d + j
                          : nullptr;
        } else if (t < slice_values<diagonal> && blockIdx.y == 0) {
            to = (t == columns_values ? out.counts : out.energy) + component;
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

template <bool aligned, bool diagonal>
cudaError_t launch(
        const MixtureRowsInput& in,
        const TileItems& items,
        const WideRows& wide,
        const DeviceStatistics& out,
        cudaStream_t stream) {
    const auto kernel = combine_tiles_kernel<aligned, diagonal>;
    const int bytes = sizeof(CombineShared<diagonal>);
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
    const bool aligned = in.aligned();
    const bool diagonal = in.half_precisions;
    const auto launch_this = aligned
            ? (diagonal ? launch<true, true> : launch<true, false>)
            : (diagonal ? launch<false, true> : launch<false, false>);
    return launch_this(in, items, wide, out, stream);
}

} // namespace faiss_flash
