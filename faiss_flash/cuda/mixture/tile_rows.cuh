#pragma once

// What a thread block does with the rows of its tile: their components from
// the masks, distances, responsibilities.

#include <faiss_flash/cuda/mixture/pairs.cuh>
#include <faiss_flash/cuda/mixture/row_lanes.cuh>
#include <faiss_flash/cuda/mixture/tiles.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {
namespace tiles {

constexpr int row_lanes = 4; ///< threads of a row
constexpr int threads = tile_rows * row_lanes;
constexpr int warps = threads / 32;
constexpr int row_words = tile_rows / 32; ///< one bit a row
constexpr int pair_groups = threads / pair_lanes;
static_assert(tile_rows == 128, "four rows a lane in place_rows()");
static_assert(tile_pairs < 1 << 16, "places are 16 bits");

/// What TileItem says of one row.
struct alignas(16) Entry {
    uint32_t row; ///< see TileItem::at
    float share, energy, unused;
};

/** Pairs are a row and one of its components, row after row; entries are the
 * pairs that hold a share, by component and then by row.
 *
 * After this: of each word of masks the bits that some row keeps (uint32_t),
 * and how many come before it (uint16_t).
 */
struct alignas(16) Shared {
    union {
        uint32_t listed[tile_rows][row_entries]; ///< components of a row
        /// of a component of the tile, after that
        uint32_t rows_of[tile_pairs][row_words];
        Entry entry[tile_pairs]; ///< at last
    };
    union {
        double value[tile_pairs]; ///< log p(x, k) of a pair
        struct {                  // after that
            uint16_t start[tile_pairs + 2]; ///< a component's first entry
            uint16_t vector[tile_pairs];    ///< vectors before its own
            uint32_t id[tile_pairs]; ///< number of the tile's component
        };
    };
    uint32_t component[tile_pairs]; ///< of a pair; its rank at last
    float dist[tile_pairs];         ///< ‖x − μ‖² of a pair
    float share[tile_pairs];        ///< p / top of a pair, then r w
    uint8_t row[tile_pairs];        ///< of a pair
    uint32_t rows[tile_rows];          ///< numbers
    uint16_t first_pair[tile_rows + 1];
    uint8_t count[tile_rows]; ///< pairs of a row; 0: it is wide
    float scale[tile_rows];   ///< of a row's shares, to r w
    float least[tile_rows];   ///< share that is kept
    uint32_t kept, components;
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

/// Four threads: the components of the tile's row i.
__device__ __forceinline__ void list_row(
        Shared& s,
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
        const int first = (t0 + part) * assign_columns;
#pragma unroll
        for (int w = 0; w < mask_tile_words; w++) {
            for (uint32_t left = words[w]; left != 0;) {
                const int bit = __clz(left);
                left &= ~(0x80000000u >> bit);
                if (at < row_entries) {
                    s.listed[i][at++] =
                            first + 2 * w + MaskBit::columns_past(bit);
                }
            }
        }
        count += __shfl_sync(0xffffffff, end, row_lanes - 1, row_lanes);
    }
    if (part == 0) {
        s.count[i] = count <= row_entries ? count : 0;
    }
}

/// One warp: where the pairs of each row begin. Rows that come too late for
/// them are wide.
__device__ __forceinline__ void place_rows(Shared& s) {
    const int lane = threadIdx.x % 32;
    uint32_t begin[5];
    uint32_t mine = 0;
#pragma unroll
    for (int u = 0; u < 4; u++) {
        mine += s.count[4 * lane + u];
    }
    begin[0] = warp_scan(mine) - mine;
    uint32_t used = 0;
#pragma unroll
    for (int u = 0; u < 4; u++) {
        begin[u + 1] = begin[u] + s.count[4 * lane + u];
        used = begin[u + 1] <= tile_pairs ? begin[u + 1] : used;
    }
    used = __reduce_max_sync(0xffffffff, used);
#pragma unroll
    for (int u = 0; u < 4; u++) {
        s.first_pair[4 * lane + u] = min(begin[u], used);
        if (begin[u + 1] > used) {
            s.count[4 * lane + u] = 0;
        }
    }
    if (lane == 31) {
        s.first_pair[tile_rows] = used;
    }
}

/// Squared distances of all pairs; eight threads take a run of them.
template <bool aligned, int chunks, bool diagonal>
__device__ __forceinline__ void pair_distances(
        Shared& s,
        const MixtureRowsInput& in) {
    const int group = threadIdx.x / pair_lanes;
    const int all = s.first_pair[tile_rows];
    int pair = all * group / pair_groups;
    const int end = all * (group + 1) / pair_groups;
    const int steps = (all + pair_groups - 1) / pair_groups;
    // the last row that begins at or before the first pair
    int i = 0;
#pragma unroll
    for (int step = tile_rows / 2; step > 0; step /= 2) {
        i += s.first_pair[i + step] <= pair ? step : 0;
    }
    int next = pair; // where the row ends; as if one had just ended
    const uint32_t* listed = nullptr; // listed[pair]
    i--;
    // rows and means in the units that are loaded; 32 bits, see TileInput
    constexpr int unit = aligned ? 4 : 1;
    const uint32_t width = in.d / unit;
    const float* rows = one_address(in.x);
    const float* means = one_address(in.means);
    const float* halves = one_address(in.half_precisions);
    PairRow<aligned, chunks, diagonal> x;
    x.row = in.x;
    for (int step = 0; step < steps; step++, pair++) {
        if (pair >= next && pair < end) {
            do {
                i++;
                next = s.first_pair[i + 1];
            } while (next <= pair);
            listed = s.listed[i] - s.first_pair[i];
            x.load(element<unit>(rows, s.rows[i] * width));
        }
        // past the end: anything that exists
        const uint32_t c = pair < end ? listed[pair] : 0;
        const float dist = x.distance(
                element<unit>(means, c * width),
                element<unit>(halves, c * width),
                in.d);
        if (pair < end && threadIdx.x % pair_lanes == 0) {
            s.dist[pair] = dist;
            s.component[pair] = c;
            s.row[pair] = i;
        }
    }
}

/// fn(pair) for the thread's pairs.
template <class Fn>
__device__ __forceinline__ void for_each_pair(const Shared& s, Fn&& fn) {
    const int all = s.first_pair[tile_rows];
    for (int p = threadIdx.x; p < all; p += threads) {
        fn(p);
    }
}

/// Four threads: the normaliser of the tile's row i, whose values are known.
/// False: the row is wide.
__device__ __forceinline__ bool settle_row(
        Shared& s,
        const MixtureRowsInput& in,
        const MixtureRowsOutput& out,
        int i) {
    const int part = threadIdx.x % row_lanes;
    const int count = s.count[i], first = s.first_pair[i];
    const int64_t row = count > 0 ? s.rows[i] : 0;
    double top = -INFINITY;
    uint32_t best = 0xffffffff;
    auto see = [&](double value, uint32_t component) {
        if (value > top || (value == top && component < best)) {
            top = value;
            best = component;
        }
    };
    for (int j = part; j < count; j += row_lanes) {
        see(s.value[first + j], s.component[first + j]);
    }
    __syncwarp(); // whole warps from here
#pragma unroll
    for (int step = row_lanes / 2; step > 0; step /= 2) {
        const double value = __shfl_xor_sync(0xffffffff, top, step);
        const uint32_t component = __shfl_xor_sync(0xffffffff, best, step);
        see(value, component);
    }
    // what lies below counts as not listed: that depends on the row alone
    const float nothing = expf(-in.range);
    float sum = 0;
    int n = 0;
    for (int j = part; j < count; j += row_lanes) {
        const float share = __expf(float(s.value[first + j] - top));
        const bool counts = share >= nothing;
        s.share[first + j] = counts ? share : 0;
        sum += counts ? share : 0;
        n += counts;
    }
    __syncwarp(); // whole warps from here
    sum = row_sum<row_lanes>(sum);
    n = row_sum<row_lanes>(n);
    const float inverse = 1 / sum;
    const float least = in.most_drop * sum / n;
    float dropped = 0;
    for (int j = part; j < count; j += row_lanes) {
        const float share = s.share[first + j];
        dropped += share < least ? share : 0;
    }
    __syncwarp(); // whole warps from here
    dropped = row_sum<row_lanes>(dropped) * inverse;
    if (part == 0 && count > 0) {
        s.least[i] = least;
        s.scale[i] = in.weights ? inverse * in.weights[row] : inverse;
        out.log_density[row] = top + logf(sum);
        out.best[row] = best;
        if (out.members) {
            atomicAdd(out.members + best, 1ull);
        }
        dropped += n < in.k ? in.k * nothing : 0;
        // not negative: their bits order like integers
        atomicMax(reinterpret_cast<int*>(&s.dropped), __float_as_int(dropped));
    }
    return count > 0;
}

} // namespace tiles
} // namespace faiss_flash
