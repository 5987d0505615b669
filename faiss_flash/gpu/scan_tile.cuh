#pragma once

#include <faiss_flash/gpu/decode.cuh>

namespace faiss_flash {

constexpr int scan_threads = 128;

/** Queries × entries of one list.
 *
 * A warp has `per_warp` queries; `query_warps` warps have different ones and
 * the others other entries. A lane has `query_warps` entries, 32 apart.
 */
template <CodeKind kind, bool inner_product, int per_warp, int query_warps>
class Tile {
   public:
    static constexpr int queries = per_warp * query_warps;

    static constexpr int chunk = 32; ///< components in shared memory at a time
    static constexpr int row = chunk + 4; ///< begin 4 banks apart: no conflicts

    struct Shared {
        alignas(16) float x[queries][row];
        alignas(16) float v[tile_entries][row];
        const float* query[queries];
        float* scores[queries];
    };

    /// Scores of `count` queries and `entries` entries of the list from
    /// `first` on; shared.query and shared.scores (for entry `first`) are set.
    __device__ static void scan(
            Shared& shared,
            const ListsView& lists,
            int list,
            int64_t first,
            int entries,
            int count,
            bool x_quads) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const int first_query = warp % query_warps * per_warp;
        const int first_entry = warp / query_warps * 32 * query_warps;
        const int live = first_query < count
                ? min(query_warps, (entries - first_entry + 31) / 32)
                : 0;
        float sums[per_warp][query_warps] = {};
        __syncthreads(); // shared.query and shared.scores are there
        Part part(shared, lists, list, first, entries, count, 0, x_quads);
        for (int dim = 0; dim < lists.d; dim += chunk) {
            __syncthreads(); // the chunk before is used up
            part.store(shared, lists, first, entries);
            __syncthreads(); // this one is there
            if (dim + chunk < lists.d) {
                // on its way while this one is worked on
                part = Part(
                        shared,
                        lists,
                        list,
                        first,
                        entries,
                        count,
                        dim + chunk,
                        x_quads);
            }
            const int steps = (min(chunk, lists.d - dim) + 3) / 4;
            add<query_warps>(
                    shared, first_query, first_entry + lane, steps, live, sums);
        }
#pragma unroll
        for (int q = 0; q < per_warp; q++) {
            if (first_query + q < count) {
                float* scores = shared.scores[first_query + q];
#pragma unroll
                for (int i = 0; i < query_warps; i++) {
                    const int entry = first_entry + 32 * i + lane;
                    if (entry < entries) {
                        scores[entry] = inner_product ? -sums[q][i]
                                                      : sums[q][i];
                    }
                }
            }
        }
    }

   private:
    static constexpr int columns = chunk / 4;           // of four components
    static constexpr int rows_at_once = scan_threads / columns;

    /// A thread's part of a chunk, on its way to shared memory.
    class Part {
       public:
        __device__ Part(
                const Shared& shared,
                const ListsView& lists,
                int list,
                int64_t first,
                int entries,
                int count,
                int dim,
                bool x_quads)
                : decode_(lists, list, dim + column()) {
            const uint8_t* code = lists.codes + first * lists.code_size;
            if (lists.quads) {
#pragma unroll
                for (int i = 0; i < entry_rows; i++) {
                    const int entry = begin() + i * rows_at_once;
                    codes_[i] = entry < entries
                            ? decode_.read_quad(code + entry * lists.code_size)
                            : Code{};
                }
            }
#pragma unroll
            for (int i = 0; i < query_rows; i++) {
                const int query = begin() + i * rows_at_once;
                x_[i] = query < count ? load4(
                                                shared.query[query],
                                                dim + column(),
                                                lists.d,
                                                x_quads)
                                      : make_float4(0, 0, 0, 0);
            }
        }

        __device__ void store(
                Shared& shared,
                const ListsView& lists,
                int64_t first,
                int entries) const {
            float* to = &shared.v[begin()][column()];
            if (lists.quads) {
#pragma unroll
                for (int i = 0; i < entry_rows; i++) {
                    *reinterpret_cast<float4*>(to + i * rows_at_once * row) =
                            decode_.unpack(codes_[i]);
                }
            } else {
                // codes in odd pieces, read only now
                const uint8_t* code = lists.codes + first * lists.code_size;
#pragma unroll 1
                for (int i = begin(); i < entries; i += rows_at_once) {
                    *reinterpret_cast<float4*>(to) = decode_.unpack(
                            decode_.read_each(code + i * lists.code_size));
                    to += rows_at_once * row;
                }
            }
#pragma unroll
            for (int i = 0; i < query_rows; i++) {
                const int query = begin() + i * rows_at_once;
                if (query < queries) {
                    *reinterpret_cast<float4*>(&shared.x[query][column()]) =
                            x_[i];
                }
            }
        }

       private:
        using Code = typename Decoder<kind>::Type;
        static constexpr int entry_rows = tile_entries / rows_at_once;
        static constexpr int query_rows =
                (queries + rows_at_once - 1) / rows_at_once;

        __device__ static int begin() {
            return threadIdx.x / columns;
        }
        __device__ static int column() {
            return threadIdx.x % columns * 4;
        }

        Decoder<kind> decode_;
        Code codes_[entry_rows];
        float4 x_[query_rows];
    };

    /// One chunk; as many of the lane's entries as are live, the rest of
    /// `sums` stays.
    template <int most>
    __device__ static void add(
            const Shared& shared,
            int first_query,
            int entry,
            int steps,
            int live,
            float (&sums)[per_warp][query_warps]) {
        if constexpr (most > 1) {
            if (live < most) {
                add<most - 1>(shared, first_query, entry, steps, live, sums);
                return;
            }
        }
        if (live < 1) {
            return;
        }
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            float4 v[most];
#pragma unroll
            for (int i = 0; i < most; i++) {
                v[i] = *reinterpret_cast<const float4*>(
                        &shared.v[entry + 32 * i][4 * step]);
            }
#pragma unroll
            for (int q = 0; q < per_warp; q++) {
                const float4 x = *reinterpret_cast<const float4*>(
                        &shared.x[first_query + q][4 * step]);
#pragma unroll
                for (int i = 0; i < most; i++) {
                    float& sum = sums[q][i];
                    sum = add_term(sum, x.x, v[i].x);
                    sum = add_term(sum, x.y, v[i].y);
                    sum = add_term(sum, x.z, v[i].z);
                    sum = add_term(sum, x.w, v[i].w);
                }
            }
        }
    }

    __device__ static float add_term(float sum, float x, float v) {
        if (inner_product) {
            return fmaf(x, v, sum);
        }
        const float difference = x - v;
        return fmaf(difference, difference, sum);
    }
};

} // namespace faiss_flash
