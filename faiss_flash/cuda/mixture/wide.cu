// Rows with too many components for a tile, a thread block each.

#include <faiss_flash/cuda/mixture/block.cuh>
#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/tiles.cuh>

namespace faiss_flash {

namespace {

constexpr int list_threads = 1024;
constexpr int threads = 512; // for few rows, latency is what counts
constexpr int wide_grid = 64; ///< thread blocks per block of rows

/// One thread block per block of rows, a part of its rows per warp; four rows
/// a thread at once.
__global__ void __launch_bounds__(list_threads) list_wide_kernel(
        const MixtureRowsInput in,
        const WideRows wide) {
    constexpr int warps = list_threads / 32;
    __shared__ uint32_t counts[warps];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t first = blockIdx.x * in.block_rows;
    const int64_t end = min(first + in.block_rows, in.n);
    const int64_t per_warp = in.block_rows / warps;
    const int64_t i0 = first + warp * per_warp;
    auto marks_of = [&](int64_t i) -> uint32_t { // a byte per row
        if (i + 4 <= end) {
            return *reinterpret_cast<const uint32_t*>(wide.marks + i);
        }
        uint32_t marks = 0;
        for (int e = 0; e < 4 && i + e < end; e++) {
            marks |= uint32_t(wide.marks[i + e]) << 8 * e;
        }
        return marks;
    };
    uint32_t count = 0;
    // mostly there are few
#pragma unroll 8
    for (int64_t i = i0 + 16 * lane; i < i0 + per_warp; i += 512) {
        if (i + 16 <= end) {
            const uint4 m = *reinterpret_cast<const uint4*>(wide.marks + i);
            count += __popc(m.x & 0x01010101) + __popc(m.y & 0x01010101) +
                    __popc(m.z & 0x01010101) + __popc(m.w & 0x01010101);
        } else {
            for (int e = 0; e < 16; e += 4) {
                count += __popc(marks_of(i + e) & 0x01010101);
            }
        }
    }
    count = __reduce_add_sync(0xffffffff, count);
    if (lane == 0) {
        counts[warp] = count;
    }
    __syncthreads(); // every warp's count is there
    uint32_t at = 0, all = 0;
    for (int w = 0; w < warps; w++) {
        at += w < warp ? counts[w] : 0;
        all += counts[w];
    }
    if (threadIdx.x == 0) {
        wide.counts[blockIdx.x] = make_uint2(all, 0);
    }
    if (count == 0) {
        return;
    }
    const uint32_t before = (1u << lane) - 1;
#pragma unroll 4
    for (int64_t i = i0 + 4 * lane; i < i0 + per_warp; i += 128) {
        const uint32_t marks = marks_of(i);
        uint32_t to = at;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t lanes =
                    __ballot_sync(0xffffffff, marks >> 8 * e & 1);
            to += __popc(lanes & before);
            at += __popc(lanes);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (marks >> 8 * e & 1) {
                wide.rows[first + to++] = i + e;
            }
        }
    }
}

/// Distances of a row's components: 1 and the distance of one that is listed,
/// 0 and 0 otherwise.
template <bool aligned, bool diagonal>
__device__ void wide_distances(
        const TileInput& tiles,
        int64_t row,
        bool everything,
        float2* shares) {
    constexpr int words = 64; ///< of masks at once
    __shared__ uint32_t listed[32 * words];
    __shared__ int count;
    const MixtureRowsInput& in = tiles.rows;
    PairRow<aligned, 0, diagonal> x;
    x.load(in.x + row * in.d);
    for (int w0 = 0; w0 < tiles.masks.words; w0 += words) {
        __syncthreads(); // the list before has been read
        if (threadIdx.x == 0) {
            count = 0;
        }
        __syncthreads(); // the list is empty
        for (int b = threadIdx.x; b < 32 * words; b += threads) {
            const int w = w0 + b / 32;
            const int c = MaskBit{w, b % 32}.component();
            if (c < in.k) {
                const bool there = everything ||
                        (tiles.masks.load(row, w) >> b % 32 & 1);
                if (there) {
                    // in any order: each has its place in `shares`
                    listed[atomicAdd(&count, 1)] = c;
                } else {
                    shares[c] = make_float2(0, 0);
                }
            }
        }
        __syncthreads(); // the list is there
        // whole warps
        for (int l0 = 0; l0 < count; l0 += threads / pair_lanes) {
            const int l = l0 + threadIdx.x / pair_lanes;
            const int c = listed[min(l, count - 1)];
            const float dist = distance_of(x, in, c);
            if (l < count && threadIdx.x % pair_lanes == 0) {
                shares[c] = make_float2(1, dist);
            }
        }
    }
    __syncthreads(); // all distances are there
}

/// What components without a bit hold of a row at most: the best density is at
/// least the masks' range above the threshold.
__device__ float unlisted_share(const TileInput& tiles, int64_t row) {
    return tiles.masks.tail(tiles.masks.near[row], tiles.rows.k) *
            __expf(-mask_range(tiles.rows.range));
}

/// A row: distances, and then shares.
template <bool aligned, bool diagonal>
__device__ void wide_row(
        const TileInput& tiles,
        const MixtureRowsOutput& out,
        int64_t row,
        int mark,
        float2* shares) {
    const MixtureRowsInput& in = tiles.rows;
    uint32_t mine = 0;
    for (int i = threadIdx.x; i < tiles.masks.words; i += threads) {
        mine |= tiles.masks.load(row, i);
    }
    // nothing listed: an error there, or a threshold beyond all scores
    const float share = unlisted_share(tiles, row);
    const bool everything = !__syncthreads_or(mine != 0) ||
            mark == WideRows::everything || !(share <= in.most_unlisted);
    __shared__ float unlisted; // of the row
    if (threadIdx.x == 0) {
        unlisted = everything ? 0 : share;
    }
    wide_distances<aligned, diagonal>(tiles, row, everything, shares);
    auto value_of = [&](int c, float dist) {
        return log_density_of(in, row, c, dist);
    };
    Top top = {-INFINITY, 0x7fffffff};
    for (int c = threadIdx.x; c < in.k; c += threads) {
        const float2 at = shares[c];
        if (at.x > 0) {
            top.see(value_of(c, at.y), c);
        }
    }
    top = block_top<threads>(top);
    double sum = 0, n = 0;
    for (int c = threadIdx.x; c < in.k; c += threads) {
        const float2 at = shares[c];
        if (at.x > 0) {
            const float share = expf(float(value_of(c, at.y) - top.value));
            shares[c].x = share;
            sum += share;
            n++;
        }
    }
    sum = block_sum<threads>(sum);
    n = block_sum<threads>(n);
    // one step of Newton's: a division would be a function call
    const double guess = __frcp_rn(float(sum));
    const double inverse = guess * (2 - sum * guess);
    const float weight = in.weights ? in.weights[row] : 1;
    double dropped = 0, kept = 0;
    for (int c = threadIdx.x; c < in.k; c += threads) {
        const float2 at = shares[c];
        float r = at.x * inverse;
        if (r * n < in.most_drop) {
            dropped += r;
            r = 0;
        }
        kept += r > 0;
        shares[c] = make_float2(
                r * weight,
                r > 0 ? fminf(r * weight * fminf(at.y, 3.4e38f), 3.4e38f)
                      : 0);
    }
    dropped = block_sum<threads>(dropped);
    kept = block_sum<threads>(kept);
    if (threadIdx.x == 0) {
        dropped += unlisted;
        out.set_row(row, top.value + log(sum), top.component);
        atomicAdd(&out.totals->entries, (unsigned long long)kept);
        out.totals->raise_dropped(dropped);
    }
}

template <bool aligned, bool diagonal>
__global__ void __launch_bounds__(threads, 1) wide_rows_kernel(
        const TileInput in,
        const MixtureRowsOutput out,
        const WideRows wide) {
    const int block = blockIdx.y;
    const int count = wide.counts[block].x;
    if (count > wide.most) {
        return; // dense
    }
    for (int i = blockIdx.x; i < count; i += gridDim.x) {
        const int64_t row = wide.rows[block * in.rows.block_rows + i];
        wide_row<aligned, diagonal>(
                in,
                out,
                row,
                wide.marks[row],
                wide.shares + ((int64_t)block * wide.most + i) * in.rows.k);
    }
}

} // namespace

cudaError_t launch_list_wide(
        const MixtureRowsInput& in,
        const WideRows& wide,
        cudaStream_t stream) {
    const int64_t blocks = (in.n + in.block_rows - 1) / in.block_rows;
    list_wide_kernel<<<blocks, list_threads, 0, stream>>>(in, wide);
    return cudaGetLastError();
}

cudaError_t launch_wide_rows(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const WideRows& wide,
        cudaStream_t stream) {
    const int64_t blocks =
            (in.rows.n + in.rows.block_rows - 1) / in.rows.block_rows;
    const bool aligned = in.rows.aligned();
    const bool diagonal = in.rows.half_precisions;
    const auto kernel = aligned
            ? (diagonal ? wide_rows_kernel<true, true>
                        : wide_rows_kernel<true, false>)
            : (diagonal ? wide_rows_kernel<false, true>
                        : wide_rows_kernel<false, false>);
    kernel<<<dim3(wide_grid, blocks), threads, 0, stream>>>(in, out, wide);
    return cudaGetLastError();
}

} // namespace faiss_flash
