#pragma once

// A row's shortlist as one warp sees it: the candidates that matter, one for
// each lane, with keys that are distances up to an error.

#include <faiss_flash/cuda/policies/choose_rules.cuh>
#include <faiss_flash/cuda/policies/choose_shortlist.cuh>

namespace faiss_flash {

/// What a warp works on: a lane has one candidate.
struct RowKeys {
    uint32_t key[32];
    uint32_t number[32];
    uint32_t counts[32]; ///< of keys by their distance from the smallest
};
/// Where candidates are measured.
struct RowMeasures {
    double value[32]; ///< −dist
    int lanes[32];    ///< that are measured now
    RowCandidates candidates;
};
/// What a row's warp reads of it.
struct RowShortlist {
    float norm, error;
    uint32_t bound;
    uint4 keys;

    __device__ void load(const ShortlistView& from, uint32_t i) {
        const uint32_t lane = threadIdx.x % 32;
        const uint32_t groups = from.groups.count();
        norm = from.norm[i];
        error = from.error[i];
        bound = from.lists.bounds[i];
        keys = make_uint4(~0u, ~0u, ~0u, ~0u);
        if (lane < groups) {
            keys = __ldcs(
                    reinterpret_cast<const uint4*>(from.lists.keys) +
                    i * groups + lane);
        }
    }
};
/// The candidates of one row; the warp's lanes all call.
template <bool aligned>
class ShortlistRow {
   public:
    /// @param measures  nullptr where nothing is measured
    __device__ ShortlistRow(
            const ChooseInput& in,
            const ShortlistView& from,
            const ShortlistTerms& terms,
            RowKeys& shared,
            RowMeasures* measures,
            int64_t row)
            : in_(in),
              from_(from),
              terms_(terms),
              shared_(shared),
              measures_(measures),
              row_(row) {}

    /// Whether the candidates that matter are here, one for each lane.
    __device__ bool find(const RowShortlist& row) {
        const float off = terms_.error(row.norm, row.error);
        // written so that NaN is none
        if (!(row.norm <= terms_.row_norm && off <= ShortlistTerms::room)) {
            return false;
        }
        margin_ = ((uint32_t)(2 * off * 0x1p24f) + 2) << shortlist_column_bits;
        const uint32_t key[shortlist_kept] = {
                row.keys.x, row.keys.y, row.keys.z, row.keys.w};
        const uint32_t best = min(min(key[0], key[1]), min(key[2], key[3]));
        low_ = __reduce_min_sync(full, best);
        // the worst of 16 pairs' bests, or of 8 fours'
        uint32_t high = min(best, __shfl_xor_sync(full, best, 16));
        if (in_.candidates <= 8) {
            high = min(high, __shfl_xor_sync(full, high, 8));
        }
        high = __reduce_max_sync(full, high);
        if (high >= shortlist_none) {
            high = shortlist_none - 1;
        }
        const uint32_t most = nearly_last(key, high) + margin_;
        if (most >= terms_.ceiling || row.bound <= most) {
            return false;
        }
        count_ = 0;
#pragma unroll
        for (int e = 0; e < shortlist_kept; e++) {
            const bool near = key[e] <= most;
            const uint32_t mask = lanes(near);
            const int at = count_ + __popc(mask & below_);
            if (near && at < 32) {
                shared_.key[at] = key[e];
                shared_.number[at] = lane_;
            }
            count_ += __popc(mask);
        }
        if (count_ > 32) {
            return false;
        }
        __syncwarp(); // candidates are there
        if (lane_ < count_) {
            key_ = shared_.key[lane_];
            number_ = from_.groups.column(shared_.number[lane_], key_);
        }
        __syncwarp(); // groups are read
        shared_.number[lane_] = number_;
        __syncwarp(); // numbers are there
        // in the units of the vectors; of a distance itself that of ‖x'‖²,
        // rounded up twice, counts too
        const float norm2 = row.norm * row.norm;
        dist_ = (terms_.relative_dist(key_) + norm2) * from_.unit;
        error_ = off * terms_.per_scale * from_.unit;
        dist_error_ = error_ + (in_.d + 64) * 0x1p-22f * norm2 * from_.unit;
        return true;
    }
   protected:
    static constexpr uint32_t full = 0xffffffff;

    __device__ bool real() const {
        return lane_ < count_;
    }
    __device__ uint32_t candidates() const {
        return count_ == 32 ? full : (1u << count_) - 1;
    }
    __device__ uint32_t lanes(bool which) const {
        return __ballot_sync(full, which);
    }

    /// Distances of the candidates of these lanes, four at a time.
    __device__ void measure(uint32_t which) {
        which &= ~measured_;
        if (which >> lane_ & 1) {
            measures_->lanes[__popc(which & below_)] = lane_;
        }
        __syncwarp(); // who is measured is known
        const int total = __popc(which);
        const int group = lane_ / distance_lanes;
#pragma unroll 1
        for (int at0 = 0; at0 < total; at0 += 32 / distance_lanes) {
            const int at = at0 + group;
            const int who = measures_->lanes[min(at, total - 1)];
            const double dist = distance<aligned>(
                    in_.d,
                    in_.x + row_ * in_.d,
                    in_.means + (int64_t)shared_.number[who] * in_.d);
            if (at < total && lane_ % distance_lanes == 0) {
                // where it is NaN, too
                measures_->value[who] = fmax(-dist, -(double)INFINITY);
            }
        }
        measured_ |= which;
        __syncwarp(); // values are there
    }

    /// Whether lane b's candidate is nearer; both were measured.
    __device__ bool nearer(int b, double value, uint32_t number) const {
        const double other = measures_->value[b];
        return other > value ||
                (other == value && shared_.number[b] < number);
    }

    /// The nearest of some that are measured, as a bit.
    __device__ uint32_t nearest_of(uint32_t which) const {
        int best = __ffs(which) - 1;
        for (which &= which - 1; which; which &= which - 1) {
            const int b = __ffs(which) - 1;
            best = nearer(b, measures_->value[best], shared_.number[best])
                    ? b
                    : best;
        }
        return 1u << best;
    }

    /// Whether a lane's candidate is one of those that the rule looks at:
    /// 1, 0, or −1 where keys do not tell.
    __device__ int looked_at(int b) const {
        const uint32_t key = shared_.key[b];
        const int most = __popc(lanes(real() && key_ <= key + margin_));
        if (most <= in_.candidates) {
            return 1;
        }
        const int least = __popc(lanes(real() && key_ + margin_ < key));
        return least >= in_.candidates ? 0 : -1;
    }

    /// Those of `which` that the rule looks at, or `full`: not known.
    __device__ uint32_t looked_at_of(uint32_t which) const {
        uint32_t kept = which;
        for (uint32_t left = which; left; left &= left - 1) {
            const int b = __ffs(left) - 1;
            const int is = looked_at(b);
            if (is < 0) {
                return full;
            }
            kept &= is ? full : ~(1u << b);
        }
        return kept;
    }

    const ChooseInput& in_;
    const ShortlistView& from_;
    const ShortlistTerms& terms_;
    RowKeys& shared_;
    RowMeasures* const measures_;
    const int64_t row_;
    const int lane_ = threadIdx.x % 32;
    const uint32_t below_ = (1u << threadIdx.x % 32) - 1;
    int count_ = 0;
    uint32_t low_ = 0;    ///< smallest key
    uint32_t margin_ = 0; ///< keys that differ by more are in order
    uint32_t key_ = full, number_ = 0;
    uint32_t measured_ = 0; ///< lanes
    float dist_ = 0;        ///< ‖x − c‖², within dist_error_
    float error_ = 0;       ///< of differences of them, half of it
    float dist_error_ = 0;

   private:
    /// A key that all candidates' do not exceed, and those of few others; or
    /// shortlist_none.
    /// @param high  the same, of more others
    __device__ uint32_t nearly_last(
            const uint32_t (&key)[shortlist_kept],
            uint32_t high) {
        const uint32_t range = high - low_;
        const int shift = max(0, 27 - __clz(range)); // 32 counts
        shared_.counts[lane_] = 0;
        __syncwarp(); // counts are 0
#pragma unroll
        for (int e = 0; e < shortlist_kept; e++) {
            const uint32_t past = key[e] - low_;
            if (past <= range) {
                atomicAdd(&shared_.counts[past >> shift], 1u);
            }
        }
        __syncwarp(); // all are counted
        int count = shared_.counts[lane_];
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int before = __shfl_up_sync(full, count, step);
            count += lane_ >= step ? before : 0;
        }
        const int at = __ffs(lanes(count >= in_.candidates));
        return at == 0 ? shortlist_none
                       : min(low_ + ((uint32_t)at << shift) - 1, high);
    }
};

} // namespace faiss_flash
