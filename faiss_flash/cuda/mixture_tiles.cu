// Tiles of rows that share components: see mixture_tiles.cuh.

#include <faiss_flash/cuda/mixture_pairs.cuh>
#include <faiss_flash/cuda/mixture_row_lanes.cuh>
#include <faiss_flash/cuda/mixture_tiles.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

constexpr int row_lanes = pair_lanes; ///< threads of a row
constexpr int threads = tile_rows * row_lanes;
constexpr int warps = threads / 32;
static_assert(tile_rows == 64, "masks of rows are two words");
static_assert(tile_entries < 1 << 16, "places are 16 bits");
static_assert(row_kept <= row_entries);

/// Entries are the (row, component) pairs that hold a share: in any order at
/// first, then by component and row. After this: of each word of masks the
/// bits that some row keeps (uint32_t), and how many come before it
/// (uint16_t).
struct alignas(16) TileShared {
    union {
        struct { // until entries are made
            uint32_t listed[tile_rows][row_entries]; ///< components of a row
            float dist[tile_rows][row_entries];
        };
        struct { // after that
            uint32_t rows_of[tile_entries][2]; ///< of a component of the tile
            uint16_t start[tile_entries + 2];  ///< its first entry
            uint16_t vector[tile_entries];     ///< vectors before its own
        };
    };
    union {
        uint32_t component[tile_entries]; ///< of an entry; its rank at last
        uint32_t number[tile_entries];    ///< of its row, once in order
    };
    float share[tile_entries];  ///< r w of an entry
    float energy[tile_entries]; ///< r w ‖x − μ‖²
    uint8_t row[tile_entries];  ///< of an entry, in any order
    uint32_t rows[tile_rows];   ///< numbers
    uint8_t count[tile_rows];   ///< components listed, 0 for wide rows
    uint16_t pairs[tile_rows + 1]; ///< components of the rows before
    uint32_t entries, components;
    uint32_t first_item, first_vector;
    float dropped;
};

/// Inclusive sum over a warp.
__device__ inline uint32_t warp_scan(uint32_t value) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(0xffffffff, value, step);
        value += lane >= step ? other : 0;
    }
    return value;
}

/// Eight threads: the components of the tile's row i.
__device__ __forceinline__ void list_row(
        TileShared& s,
        const MaskView& masks,
        int i,
        bool real) {
    const int part = threadIdx.x % row_lanes;
    const int64_t row = real ? s.rows[i] : 0;
    int count = 0;
    for (int t0 = 0; t0 < masks.tiles(); t0 += row_lanes) {
        uint4 m = make_uint4(0, 0, 0, 0);
        if (real && t0 + part < masks.tiles()) {
            m = masks.load_tile(row, t0 + part);
        }
        const uint32_t words[mask_tile_words] = {m.x, m.y, m.z, m.w};
        const int mine = __popc(m.x) + __popc(m.y) + __popc(m.z) + __popc(m.w);
        int end = mine;
#pragma unroll
        for (int step = 1; step < row_lanes; step *= 2) {
            const int other = __shfl_up_sync(0xffffffff, end, step, row_lanes);
            end += part >= step ? other : 0;
        }
        int at = count + end - mine;
#pragma unroll
        for (int w = 0; w < mask_tile_words; w++) {
            const int first =
                    MaskBit{(t0 + part) * mask_tile_words + w, 31}.component();
            for (uint32_t left = words[w]; left != 0;) {
                const int bit = __clz(left);
                left &= ~(0x80000000u >> bit);
                if (at < row_entries) {
                    s.listed[i][at++] = first + MaskBit::columns_past(bit);
                }
            }
        }
        count += __shfl_sync(0xffffffff, end, row_lanes - 1, row_lanes);
    }
    if (part == 0) {
        s.count[i] = count <= row_entries ? count : 0;
    }
}

/// One warp: where the pairs of each row begin.
__device__ __forceinline__ void place_rows(TileShared& s) {
    const int lane = threadIdx.x % 32;
    const uint32_t low = s.count[2 * lane], high = s.count[2 * lane + 1];
    const uint32_t end = warp_scan(low + high);
    s.pairs[2 * lane] = end - high - low;
    s.pairs[2 * lane + 1] = end - high;
    if (lane == 31) {
        s.pairs[tile_rows] = end;
    }
}

/// Squared distances of all pairs; eight threads take a run of them.
template <bool aligned, int chunks>
__device__ __forceinline__ void pair_distances(
        TileShared& s,
        const MixtureRowsInput& in) {
    const int group = threadIdx.x / row_lanes;
    const int all = s.pairs[tile_rows];
    int pair = all * group / tile_rows;
    const int end = all * (group + 1) / tile_rows;
    const int steps = (all + tile_rows - 1) / tile_rows;
    // the last row that begins at or before the first pair
    int i = 0;
#pragma unroll
    for (int step = tile_rows / 2; step > 0; step /= 2) {
        i += s.pairs[i + step] <= pair ? step : 0;
    }
    int next = pair; // where the row ends; as if it had just ended
    int j = pair - s.pairs[i];
    i--;
    PairRow<aligned, chunks> x;
    for (int step = 0; step < steps; step++, pair++, j++) {
        if (pair >= next && pair < end) {
            do {
                i++;
                next = s.pairs[i + 1];
            } while (next <= pair);
            j = pair - s.pairs[i];
            x.load(in.x + (int64_t)s.rows[i] * in.d);
        }
        // past the end: anything that exists
        const uint32_t c = pair < end ? s.listed[i][j] : 0;
        if constexpr (chunks == 0) {
            x.row = x.row ? x.row : in.x;
        }
        const float dist = x.distance(in.means + (int64_t)c * in.d, in.d);
        if (pair < end && threadIdx.x % row_lanes == 0) {
            s.dist[i][j] = dist;
        }
    }
}

/// Eight threads: responsibilities of the tile's row i, its distances being
/// known; entries for what is kept. False: too many, or none listed.
__device__ __forceinline__ bool share_row(
        TileShared& s,
        const MixtureRowsInput& in,
        const MixtureRowsOutput& out,
        uint32_t* some,
        int i) {
    constexpr int most = row_entries / row_lanes;
    const int part = threadIdx.x % row_lanes;
    const int first_lane = threadIdx.x % 32 / row_lanes * row_lanes;
    const int count = s.count[i];
    const int64_t row = count > 0 ? s.rows[i] : 0;
    const int longest = __reduce_max_sync(0xffffffff, count);
    double value[most];
    double top = -INFINITY;
    uint32_t best = 0xffffffff;
    auto see = [&](double other, uint32_t component) {
        if (other > top || (other == top && component < best)) {
            top = other;
            best = component;
        }
    };
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (u * row_lanes >= longest) {
            break;
        }
        const int j = u * row_lanes + part;
        value[u] = -INFINITY;
        if (j < count) {
            const uint32_t c = s.listed[i][j];
            value[u] = log_density_of(in, row, c, s.dist[i][j]);
            see(value[u], c);
        }
    }
#pragma unroll
    for (int step = row_lanes / 2; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(0xffffffff, top, step);
        const uint32_t component = __shfl_xor_sync(0xffffffff, best, step);
        see(other, component);
    }
    // what lies below counts as not listed: that depends on the row alone
    const float least = expf(-in.range);
    float share[most];
    float sum = 0;
    int n = 0;
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (u * row_lanes >= longest) {
            break;
        }
        const int j = u * row_lanes + part;
        share[u] = j < count ? __expf(float(value[u] - top)) : 0;
        share[u] = share[u] >= least ? share[u] : 0;
        sum += share[u];
        n += share[u] > 0;
    }
    sum = row_sum<row_lanes>(sum);
    n = row_sum<row_lanes>(n);
    const float inverse = 1 / sum;
    const float cut = in.most_drop / n;
    float dropped = 0;
    int kept = 0;
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (u * row_lanes >= longest) {
            break;
        }
        share[u] *= inverse;
        if (share[u] < cut) {
            dropped += share[u];
            share[u] = 0;
        }
        kept += share[u] > 0;
    }
    dropped = row_sum<row_lanes>(dropped);
    kept = row_sum<row_lanes>(kept);
    const bool fits = count > 0 && kept <= row_kept;
    uint32_t at = 0;
    if (part == 0 && fits) {
        at = atomicAdd(&s.entries, kept);
        out.log_density[row] = top + logf(sum);
        out.best[row] = best;
        if (out.members) {
            atomicAdd(out.members + best, 1ull);
        }
        dropped += n < in.k ? in.k * least : 0;
        // not negative: their bits order like integers
        atomicMax(reinterpret_cast<int*>(&s.dropped), __float_as_int(dropped));
    }
    at = __shfl_sync(0xffffffff, at, 0, row_lanes);
    const float weight = in.weights ? in.weights[row] : 1;
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (u * row_lanes >= longest) {
            break;
        }
        const bool keep = fits && share[u] > 0;
        const uint32_t mask = __ballot_sync(0xffffffff, keep) >> first_lane &
                ((1u << row_lanes) - 1);
        if (keep) {
            const int j = u * row_lanes + part;
            const uint32_t e = at + __popc(mask & bits_below(part));
            const uint32_t c = s.listed[i][j];
            const float w = share[u] * weight;
            s.component[e] = c;
            s.share[e] = w;
            s.energy[e] = fminf(w * fminf(s.dist[i][j], 3.4e38f), 3.4e38f);
            s.row[e] = i;
            const MaskBit bit = MaskBit::of(c);
            atomicOr(some + bit.word, 1u << bit.bit);
        }
        at += __popc(mask);
    }
    return fits;
}

/// One warp: how many components come before each word's.
__device__ void rank_words(
        TileShared& s,
        int words,
        const uint32_t* some,
        uint16_t* before) {
    const int lane = threadIdx.x % 32;
    uint32_t sum = 0;
    for (int w0 = 0; w0 < words; w0 += 32) {
        const int w = w0 + lane;
        const uint32_t count = w < words ? __popc(some[w]) : 0;
        const uint32_t end = warp_scan(count);
        if (w < words) {
            before[w] = sum + end - count;
        }
        sum += __shfl_sync(0xffffffff, end, 31);
    }
    if (lane == 0) {
        s.components = sum;
    }
}

/// One warp: where each component's entries, and its vector, begin; returns
/// how many vectors there are.
__device__ int place_components(TileShared& s) {
    const int lane = threadIdx.x % 32;
    const int all = s.components;
    uint32_t sum = 0; // entries, and vectors above them
    for (int c0 = 0; c0 < all; c0 += 32) {
        const int c = c0 + lane;
        uint32_t count = 0;
        if (c < all) {
            count = __popc(s.rows_of[c][0]) + __popc(s.rows_of[c][1]);
            count |= uint32_t(count > 1) << 16;
        }
        const uint32_t end = warp_scan(count);
        if (c < all) {
            s.start[c] = (sum + end - count) & 0xffff;
            s.vector[c] = (sum + end - count) >> 16;
        }
        sum += __shfl_sync(0xffffffff, end, 31);
    }
    if (lane == 0) {
        s.start[all] = s.entries;
    }
    return sum >> 16;
}

/// One warp: a component's item, with Σ r w x of its rows, in order.
template <bool aligned>
__device__ __forceinline__ void write_item(
        const TileShared& s,
        const MixtureRowsInput& in,
        const TileItems& items,
        int c) {
    const int lane = threadIdx.x % 32;
    const int first = s.start[c], end = s.start[c + 1];
    TileItem item = {s.number[first], 1, s.share[first], s.energy[first]};
    if (end - first > 1) {
        const int low = first + lane, high = low + 32;
        item.count = warp_sum(
                (low < end ? s.share[low] : 0) +
                (high < end ? s.share[high] : 0));
        item.energy = fminf(
                warp_sum(
                        (low < end ? s.energy[low] : 0) +
                        (high < end ? s.energy[high] : 0)),
                3.4e38f);
        const uint32_t vector = s.first_vector + s.vector[c];
        if (vector < items.most_vectors) {
            item.at = vector;
            item.rows = TileItem::vector;
            float* to = items.vectors + (int64_t)vector * items.stride;
            for (int j = 4 * lane; j < items.stride; j += 128) {
                float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll(aligned ? 8 : 2)
                for (int e = first; e < end; e++) {
                    const float w = s.share[e];
                    const float4 v = load_four<aligned>(
                            in.x + (int64_t)s.number[e] * in.d, j, in.d);
                    sum.x = fmaf(w, v.x, sum.x);
                    sum.y = fmaf(w, v.y, sum.y);
                    sum.z = fmaf(w, v.z, sum.z);
                    sum.w = fmaf(w, v.w, sum.w);
                }
                *reinterpret_cast<float4*>(to + j) = sum;
            }
        } else {
            // entries, less components, is enough for all links
            item.at = s.first_item + s.components + first - c;
            item.rows = end - first;
            TileLink* links =
                    reinterpret_cast<TileLink*>(items.items + item.at);
            if (low < end) {
                links[lane] = {s.number[low], s.share[low]};
            }
            if (high < end) {
                links[lane + 32] = {s.number[high], s.share[high]};
            }
        }
    }
    if (lane == 0) {
        items.items[s.first_item + c] = item;
    }
}

/// One tile a thread block; chunks: see PairRow.
template <bool aligned, int chunks>
__global__ void __launch_bounds__(threads, 2) tiles_kernel(
        const TileInput in,
        const MixtureRowsOutput out,
        const TileItems items,
        const WideRows wide) {
    extern __shared__ uint4 raw[];
    TileShared& s = *reinterpret_cast<TileShared*>(raw);
    uint32_t* some = reinterpret_cast<uint32_t*>(&s + 1);
    const int words = in.masks.words;
    uint16_t* before = reinterpret_cast<uint16_t*>(some + words);
    const int64_t tile = blockIdx.x, tiles = gridDim.x;
    const int warp = threadIdx.x / 32;
    const int64_t first = tile * tile_rows;
    const int rows = min((int64_t)tile_rows, in.rows.n - first);
    if (threadIdx.x < rows) {
        s.rows[threadIdx.x] =
                uint32_t(first) / uint32_t(in.rows.block_rows) *
                        uint32_t(in.rows.block_rows) +
                in.order[first + threadIdx.x];
    }
    for (int w = threadIdx.x; w < words; w += threads) {
        some[w] = 0;
    }
    if (threadIdx.x == 0) {
        s.entries = 0;
        s.dropped = 0;
    }
    __syncthreads(); // row numbers are there
    if (int(threadIdx.x / row_lanes) < rows) {
        // on their way while masks are read
        const float* x =
                in.rows.x + (int64_t)s.rows[threadIdx.x / row_lanes] * in.rows.d;
        for (int j = threadIdx.x % row_lanes * 32; j < in.rows.d;
             j += row_lanes * 32) {
            asm volatile("prefetch.global.L2 [%0];" ::"l"(x + j));
        }
    }
    list_row(
            s,
            in.masks,
            threadIdx.x / row_lanes,
            int(threadIdx.x / row_lanes) < rows);
    __syncthreads(); // counts are there
    if (warp == 0) {
        place_rows(s);
    }
    __syncthreads(); // rows' pairs are there
    pair_distances<aligned, chunks>(s, in.rows);
    __syncthreads(); // distances are there
    {
        const int i = threadIdx.x / row_lanes;
        const bool fits = share_row(s, in.rows, out, some, i);
        if (threadIdx.x % row_lanes == 0 && i < rows) {
            wide.marks[s.rows[i]] = !fits;
        }
    }
    __syncthreads(); // all entries are there
    const int entries = s.entries;
    if (warp == 0) {
        rank_words(s, words, some, before);
    }
    unsigned long long first_item = 0, first_vector = 0;
    if (threadIdx.x == threads - 1) {
        // not waited for yet
        first_item = atomicAdd(items.used, (unsigned long long)entries);
        atomicAdd(&out.totals->entries, (unsigned long long)entries);
        // mostly there is a larger one already
        float* dropped = &out.totals->dropped;
        if (s.dropped > *static_cast<volatile float*>(dropped)) {
            atomicMax(
                    reinterpret_cast<int*>(dropped),
                    __float_as_int(s.dropped));
        }
    }
    for (int e = threadIdx.x; e < entries; e += threads) {
        s.rows_of[e][0] = 0;
        s.rows_of[e][1] = 0;
    }
    __syncthreads(); // ranks are there
    for (int e = threadIdx.x; e < entries; e += threads) {
        const MaskBit bit = MaskBit::of(s.component[e]);
        const int c = before[bit.word] +
                __popc(some[bit.word] & bits_below(bit.bit));
        const int i = s.row[e];
        s.component[e] = c;
        atomicOr(&s.rows_of[c][i / 32], 1u << (i % 32));
    }
    __syncthreads(); // rows of components are there
    if (warp == 0) {
        const int vectors = place_components(s);
        if (threadIdx.x == 0) {
            first_vector =
                    atomicAdd(items.used + 1, (unsigned long long)vectors);
        }
    }
    __syncthreads(); // components' places are there
    // entries to their places: all are read before one is written
    constexpr int most = (tile_entries + threads - 1) / threads;
    int place[most];
    uint32_t number[most];
    float share[most], energy[most];
#pragma unroll
    for (int u = 0; u < most; u++) {
        const int e = threadIdx.x + u * threads;
        if (e < entries) {
            const int c = s.component[e], i = s.row[e];
            place[u] = s.start[c] + (i < 32 ? 0 : __popc(s.rows_of[c][0])) +
                    __popc(s.rows_of[c][i / 32] & bits_below(i % 32));
            number[u] = s.rows[i];
            share[u] = s.share[e];
            energy[u] = s.energy[e];
        }
    }
    if (threadIdx.x == 0) {
        s.first_vector = first_vector;
    }
    if (threadIdx.x == threads - 1) {
        s.first_item = first_item;
    }
    __syncthreads(); // entries have been read
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (threadIdx.x + u * threads < entries) {
            s.number[place[u]] = number[u];
            s.share[place[u]] = share[u];
            s.energy[place[u]] = energy[u];
        }
    }
    __syncthreads(); // entries are in order
    const int components = s.components;
    for (int c = warp; c < components; c += warps) {
        write_item<aligned>(s, in.rows, items, c);
    }
    for (int w = threadIdx.x; w < words; w += threads) {
        items.bits[w * tiles + tile] = some[w];
        items.first[w * tiles + tile] = s.first_item + before[w];
    }
}

template <bool aligned, int chunks>
cudaError_t launch(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const TileItems& items,
        const WideRows& wide,
        cudaStream_t stream) {
    const auto kernel = tiles_kernel<aligned, chunks>;
    const int bytes = sizeof(TileShared) + in.masks.words * 6;
    const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    const TileShape shape = {in.rows.n, in.rows.block_rows};
    kernel<<<shape.tiles(), threads, bytes, stream>>>(in, out, items, wide);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_tiles(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const TileItems& items,
        const WideRows& wide,
        cudaStream_t stream) {
    const cudaError_t error = cudaMemsetAsync(
            items.used, 0, 2 * sizeof(*items.used), stream);
    if (error != cudaSuccess) {
        return error;
    }
    const bool aligned = in.rows.d % 4 == 0 &&
            (reinterpret_cast<uintptr_t>(in.rows.x) |
             reinterpret_cast<uintptr_t>(in.rows.means)) %
                            16 ==
                    0;
    const int d = in.rows.d;
    const auto launch_this = !aligned ? launch<false, 0>
            : d == 128                 ? launch<true, 4>
            : d == 96                  ? launch<true, 3>
            : d == 64                  ? launch<true, 2>
            : d == 32                  ? launch<true, 1>
                                       : launch<true, 0>;
    return launch_this(in, out, items, wide, stream);
}

} // namespace faiss_flash
