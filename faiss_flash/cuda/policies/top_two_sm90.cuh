#pragma once

// The epilogue of the Hopper pipelines that finds two best columns.

#include <faiss_flash/cuda/policies/top_two.cuh>
#include <faiss_flash/cuda/sm90.cuh>

namespace faiss_flash {
namespace sm90 {

/// Two best of what a thread saw of a row: keys of assign_keys.cuh, each
/// column the best of its tile (of those that the thread sees).
struct RunningTwo {
    uint32_t best = 0xffffffff, second = 0xffffffff;
    uint32_t third = 0xffffffff; ///< of all others none is better than this
    int tile = 0, second_tile = 0;

    /// `third` takes the tile's second: it is not looked for any further.
    __device__ __forceinline__ void add(const Top2& found, int at) {
        const bool first = found.best < best;
        const uint32_t lost = max(best, found.best);
        const int lost_tile = first ? tile : at;
        best = min(best, found.best);
        tile = first ? at : tile;
        const bool next = lost < second;
        third = min(third, min(max(lost, second), found.second));
        second = min(second, lost);
        second_tile = next ? lost_tile : second_tile;
    }

    __device__ TopTwo costs() const {
        const int lane = threadIdx.x % 4;
        auto column_of = [&](uint32_t key, int tile) {
            const int within = key & key_column_mask;
            return tile * assign_columns + 8 * (within / 2) + 2 * lane +
                    within % 2;
        };
        return {key_cost(best),
                key_cost(second),
                key_cost(third),
                column_of(best, tile),
                column_of(second, second_tile)};
    }
};

/// Write what is proved of a row, or note what is not.
/// @param all   of the four threads that share the row
/// @param mass  Σ exp(best − cost) over all columns is at most this
__device__ inline void write_two(
        const TopTwo& all,
        float mass,
        int64_t row,
        const TopTwoInput& in,
        const TopTwoOutput& out) {
    const TypicalRow usual = *in.rows.typical;
    const CostScale range = *in.scale;
    const float unit = 1 / range.scale;
    const int first = min(all.column, in.k - 1);
    const int second = min(all.second_column, in.k - 1);
    // costs are at least c, and at most c and twice what they allow for
    const float c1 = all.best * unit, c2 = all.second * unit,
                c3 = all.third * unit;
    const float most1 = c1 + 2 * in.slack[first] + range.rounding;
    const float most2 = c2 + 2 * in.slack[second] + range.rounding;
    const float others = fminf(c2, c3);
    // costs of other rows may be off by more; written so that NaN is one
    const bool usual_row = in.rows.norm[row] <= usual.norm &&
            in.rows.error[row] <= usual.error && range.scale > 0 &&
            all.best < 1;
    const bool best_proved = usual_row && most1 < others;
    const bool told_apart = usual_row && all.second < 1 && first != second;
    const bool two_proved = best_proved && told_apart && most2 < c3;
    // the rounding of these few lines
    const float doubt = 1e-5f;
    const bool none = best_proved &&
            (in.lists == 1 || most1 - others < in.log_tau - doubt);
    const bool wanted = in.lists == 1
            ? usual_row
            : told_apart &&
                    c1 - fmaxf(most1, most2) - logf(mass) > in.log_tau + doubt;
    if (none || (wanted && two_proved)) {
        out.to[row * in.lists] = first;
        if (in.lists == 2) {
            out.to[row * 2 + 1] = none ? -1 : second;
        }
        return;
    }
    const bool order = wanted;
    const RowNumbers& open = order ? out.unordered : out.unshared;
    const uint32_t at = atomicAdd(open.count, 1u);
    open.rows[at] = row;
    open.columns[at] =
            order && in.lists == 2 && most2 > most1 ? second : first;
}

struct ThreadTopTwo {
    using Input = TopTwoInput;
    using Output = TopTwoOutput;
    using Columns = float4; ///< offset and factor of two columns
    static constexpr bool columns_travel = false; // no room at d = 128
    __host__ __device__ static PassShape shape(const TopTwoInput& in) {
        return {in.rows.n, in.rows.d_padded, in.k_padded, in.columns};
    }
    RunningTwo low, high;
    float norm2[2];
    int64_t first; ///< the thread's first row

    __device__ void start(const TopTwoInput& in, int64_t first_row) {
        first = first_row + row_of_thread();
        low = {};
        high = {};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            norm2[i] = first + 8 * i < in.rows.n
                    ? squared_norm(in.rows.norm[first + 8 * i], in.rows.d)
                    : 0;
        }
    }

    template <class Load>
    __device__ __forceinline__ void add(
            const TopTwoInput& in,
            const TopTwoOutput&,
            const float (&acc)[64],
            int tile,
            Load&& load) {
        Top2 found_low, found_high;
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
            // e: of four products, of two rows and two columns
            auto key = [&](int e) {
                const float part = fmaf(-2, acc[4 * g + e], norm2[e / 2]);
                const float cost = e % 2 ? __saturatef(fmaf(c.w, part, c.z))
                                         : __saturatef(fmaf(c.y, part, c.x));
                return make_key(cost, 2 * g + e % 2, in.key_factor);
            };
            found_low.add(key(0), key(1));
            found_high.add(key(2), key(3));
        }
        low.add(found_low, tile);
        high.add(found_high, tile);
    }

    /// The four threads that share two rows: two of them end up with one row
    /// each, and the others with the same.
    __device__ void finish(const TopTwoInput& in, const TopTwoOutput& out)
            const {
        const int lane = threadIdx.x % 4;
        const TopTwo mine[2] = {low.costs(), high.costs()};
        const TopTwo kept = lane % 2 ? mine[1] : mine[0];
        const TopTwo given = lane % 2 ? mine[0] : mine[1];
        const TopTwo taken = given.of_lane(1);
        TopTwo all = kept;
        all.merge(taken);
        all.merge(all.of_lane(2));
        const float unit = 1 / in.scale->scale;
        auto mass_of = [&](const TopTwo& seen) {
            auto share = [&](float cost) {
                return expf((all.best - cost) * unit);
            };
            return share(seen.best) + share(seen.second) +
                    in.k_padded / 4 * share(seen.third);
        };
        float mass = mass_of(kept) + mass_of(taken);
        mass += __shfl_xor_sync(0xffffffff, mass, 2);
        const int64_t row = first + 8 * lane;
        if (lane < 2 && row < in.rows.n) {
            write_two(all, mass, row, in, out);
        }
    }
};

} // namespace sm90
} // namespace faiss_flash
