#pragma once

// The epilogues of the Hopper pipelines that list components, mark them in
// masks, or find the bests of groups of them.

#include <type_traits>

#include <faiss_flash/cuda/mixture/masks.cuh>
#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {
namespace sm90 {

constexpr int list_part_capacity = list_capacity / 4;

__host__ __device__ inline PassShape shape_of(const ListInput& in) {
    return {in.n, in.d_padded, in.k_padded, in.columns};
}

/// The lists of a thread's two rows of 64, `high` 8 rows below `low`.
struct ThreadLists {
    using Input = ListInput;
    using Output = ListOutput;
    using Columns = float4; ///< a, h of two columns
    static constexpr bool columns_travel = false; // no room at d = 128
    __host__ __device__ static PassShape shape(const ListInput& in) {
        return shape_of(in);
    }
    RowList low, high;
    int64_t first; ///< of the 64 rows

    __device__ int64_t row() const {
        return first + row_of_thread();
    }
    /// The thread's part of the list of `low`.
    __device__ Listed* part(const ListOutput& out) const {
        return out.listed + row() * list_capacity +
                threadIdx.x % 4 * list_part_capacity;
    }

    __device__ void start(const ListInput& in, int64_t first_row) {
        first = first_row;
        low.start(in, row());
        high.start(in, row() + 8);
    }

    /// Scores of 64 × 128 products.
    template <class Load>
    __device__ __forceinline__ void add(
            const ListInput&,
            const ListOutput& out,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        constexpr int capacity = list_part_capacity;
        const int column0 = tile * assign_columns + 2 * (threadIdx.x % 4);
        Listed* to = part(out);
        constexpr int ahead = 3;
        float4 columns[ahead];
#pragma unroll
        for (int g = 0; g < ahead; g++) {
            columns[g] = load(g);
        }
#pragma unroll
        for (int g = 0; g < 16; g++) {
            const int column = column0 + 8 * g;
            const float4 c = columns[g % ahead];
            if (g + ahead < 16) {
                columns[g % ahead] = load(g + ahead);
            }
            const float v0 = low.score(acc[4 * g], c.x, c.y);
            const float v1 = low.score(acc[4 * g + 1], c.z, c.w);
            const float v2 = high.score(acc[4 * g + 2], c.x, c.y);
            const float v3 = high.score(acc[4 * g + 3], c.z, c.w);
            if (low.reached(v0) | low.reached(v1) | high.reached(v2) |
                high.reached(v3)) {
                low.offer<capacity>(v0, column, to);
                low.offer<capacity>(v1, column + 1, to);
                high.offer<capacity>(v2, column, to + 8 * list_capacity);
                high.offer<capacity>(v3, column + 1, to + 8 * list_capacity);
            }
        }
        low.give_up_beyond(capacity);
        high.give_up_beyond(capacity);
    }

    __device__ void finish(const ListInput& in, const ListOutput& out) const {
        finish(low, row(), in, out);
        finish(high, row() + 8, in, out);
    }

   private:
    __device__ static void finish(
            const RowList& list,
            int64_t row,
            const ListInput& in,
            const ListOutput& out) {
        if (row < in.n) {
            uint8_t* counts =
                    out.counts + row * list_parts + threadIdx.x % 4;
            counts[0] = list.final_count(list_part_capacity);
            counts[4] = 0;
        }
    }
};

/// Best scores of groups of components, for a thread's two rows of 64. A
/// group is what one thread sees of some consecutive tiles, or of a part of
/// one; 8 groups per thread at most.
struct ThreadGroups {
    using Input = ListInput;
    using Output = GroupOutput;
    using Columns = float4; ///< a, h of two columns
    static constexpr bool columns_travel = false; // no room at d = 128
    __host__ __device__ static PassShape shape(const ListInput& in) {
        return shape_of(in);
    }
    float norm2[2], best[2];
    int slot; ///< that `best` belongs to
    int64_t first;

    __device__ int64_t row(int high) const {
        return first + row_of_thread() + 8 * high;
    }

    __device__ void start(const ListInput& in, int64_t first_row) {
        first = first_row;
        slot = 0;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            norm2[i] = row(i) < in.n ? in.limits[row(i)].norm2 : 0;
            best[i] = -INFINITY;
        }
    }

    template <class Load>
    __device__ __forceinline__ void add(
            const ListInput& in,
            const GroupOutput& out,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        const int first_slot = in.groups.first_slot(tile);
#pragma unroll
        for (int g = 0; g < 16; g++) {
            const int next = first_slot + in.groups.slot_within(g, 4);
            if (next != slot) {
                flush(in, out);
                slot = next;
            }
            const float4 c = load(g);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float v0 = fmaf(
                        c.y, fmaf(2, acc[4 * g + 2 * i], -norm2[i]), c.x);
                const float v1 = fmaf(
                        c.w, fmaf(2, acc[4 * g + 2 * i + 1], -norm2[i]), c.z);
                best[i] = fmaxf(best[i], fmaxf(v0, v1));
            }
        }
    }

    __device__ void flush(const ListInput& in, const GroupOutput& out) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (row(i) < in.n) {
                out.best[row(i) * list_groups_per_row + slot * 4 +
                         threadIdx.x % 4] = best[i];
            }
            best[i] = -INFINITY;
        }
    }

    __device__ void finish(const ListInput& in, const GroupOutput& out) {
        flush(in, out);
    }
};

/// Bits of the components that reach a row's threshold: no branch, and one
/// word per tile for each of a thread's two rows of 64.
struct ThreadMasks {
    using Input = ListInput;
    using Output = MaskOutput;
    using Columns = float4; ///< a, h of two columns
    static constexpr bool columns_travel = false; // no room at d = 128
    __host__ __device__ static PassShape shape(const ListInput& in) {
        return shape_of(in);
    }
    float norm2[2];
    MaskScale scale[2];
    uint32_t near[2];
    int64_t first; ///< of the 64 rows

    __device__ int64_t row(int high) const {
        return first + row_of_thread() + 8 * high;
    }

    __device__ void start(const ListInput& in, int64_t first_row) {
        first = first_row;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const RowLimit limit =
                    row(i) < in.n ? in.limits[row(i)] : RowLimit{0, 0, 0};
            norm2[i] = limit.norm2;
            scale[i] = MaskScale::of(limit.threshold);
            near[i] = 0;
        }
    }

    template <class Load>
    __device__ __forceinline__ void add(
            const ListInput& in,
            const MaskOutput& out,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        uint32_t bits[2][2] = {}; // of two times 16 scores
        constexpr int ahead = 3;
        float4 columns[ahead];
#pragma unroll
        for (int g = 0; g < ahead; g++) {
            columns[g] = load(g);
        }
#pragma unroll
        for (int g = 0; g < 16; g++) {
            const float4 c = columns[g % ahead];
            if (g + ahead < 16) {
                columns[g % ahead] = load(g + ahead);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float v0 = fmaf(
                        c.y, fmaf(2, acc[4 * g + 2 * i], -norm2[i]), c.x);
                const float v1 = fmaf(
                        c.w, fmaf(2, acc[4 * g + 2 * i + 1], -norm2[i]), c.z);
                uint32_t& to = bits[i][g / 8];
                to = scale[i].push(scale[i].push(to, v0), v1);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t listed = MaskScale::listed(bits[i][0]) |
                    MaskScale::listed(bits[i][1]) << 1;
            near[i] += __popc(
                    MaskScale::near(bits[i][0]) |
                    MaskScale::near(bits[i][1]) << 1);
            if (row(i) < in.n) {
                out.masks[row(i) * out.words + tile * mask_tile_words +
                          threadIdx.x % 4] = listed;
            }
        }
    }

    __device__ void finish(const ListInput& in, const MaskOutput& out) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t sum = near[i];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            if (threadIdx.x % 4 == 0 && row(i) < in.n) {
                out.near[row(i)] = sum;
            }
        }
    }
};

/// The epilogue that fills an Output.
template <class Output>
using ThreadEpilogue = std::conditional_t<
        std::is_same_v<Output, ListOutput>,
        ThreadLists,
        std::conditional_t<
                std::is_same_v<Output, MaskOutput>,
                ThreadMasks,
                ThreadGroups>>;

} // namespace sm90
} // namespace faiss_flash
