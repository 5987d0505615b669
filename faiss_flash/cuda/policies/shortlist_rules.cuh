#pragma once

// The rules for one shortlist: what keys settle, and which candidates have
// to be measured for the rest.

#include <faiss_flash/cuda/policies/shortlist_row.cuh>

namespace faiss_flash {

/// The float's place in the order of integers.
__device__ inline uint32_t ordered(float value) {
    const uint32_t bits = __float_as_uint(value);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}
/// The lists of one row; the warp's lanes all call.
template <bool aligned, RuleKind kind, bool measures>
class ShortlistChooser : public ShortlistRow<aligned> {
    using Base = ShortlistRow<aligned>;
    using Base::count_, Base::dist_, Base::dist_error_, Base::error_;
    using Base::from_, Base::full, Base::in_, Base::key_, Base::lane_;
    using Base::lanes, Base::looked_at, Base::looked_at_of, Base::low_;
    using Base::margin_, Base::measure, Base::measures_, Base::nearer;
    using Base::candidates, Base::nearest_of, Base::number_, Base::real;
    using Base::shared_;
    /// Rounding of what is computed here from single-precision distances.
    static constexpr float doubt = 0x1p-20f;

   public:
    /// @param to  (in.limit)
    __device__ ShortlistChooser(
            const ChooseInput& in,
            const ShortlistView& from,
            const ShortlistTerms& terms,
            RowKeys& shared,
            RowMeasures* measured,
            int64_t row,
            idx_t* to)
            : Base(in, from, terms, shared, measured, row), to_(to) {}

    /// False: what this needs is measured elsewhere.
    __device__ bool choose() {
        if constexpr (kind == RuleKind::ranks) {
            choose_first();
        } else {
            uint32_t first = lanes(real() && key_ <= low_ + margin_);
            if (first & (first - 1)) {
                if (!measures) {
                    return false;
                }
                measure(first);
                first = nearest_of(first);
            }
            first_ = __ffs(first) - 1;
            only_ = -1;
            const uint32_t rest = kind == RuleKind::closure ? near_ones()
                                                            : best_ones();
            if (rest == 0 || only_ >= 0) {
                write(only_);
            } else if (measures) {
                const uint32_t all =
                        rest == full ? candidates() : rest | 1u << first_;
                measure(all);
                apply_rule(all);
            } else {
                return false;
            }
        }
        return true;
    }
   private:
    /// The rule for some candidates, the nearest one among them; measured.
    __device__ void apply_rule(uint32_t which) {
        if (which >> lane_ & 1) {
            const double value = measures_->value[lane_];
            int rank = 0;
            for (uint32_t left = which; left; left &= left - 1) {
                rank += nearer(__ffs(left) - 1, value, number_);
            }
            if (rank < in_.candidates) {
                measures_->candidates.number[rank] = number_;
                measures_->candidates.value[rank] = value;
            }
        }
        if (lane_ == 0) {
            measures_->candidates.count = min(__popc(which), in_.candidates);
        }
        __syncwarp(); // candidates are in order
        RowChooser<aligned, kind>(in_, measures_->candidates).choose(0, to_);
    }

    /// The first candidate, and that of lane `second`, or −1.
    __device__ void write(int second) {
        if (lane_ < in_.limit) {
            const int from = lane_ == 0 ? first_ : lane_ == 1 ? second : -1;
            to_[lane_] = from < 0 ? -1 : (idx_t)shared_.number[from];
        }
    }

    /// All `limit` nearest, in order. Where two are too close to tell, both
    /// are measured.
    __device__ void choose_first() {
        int rank = 0, sure = 0;
        bool close = false;
#pragma unroll 1
        for (int other = 0; other < count_; other++) {
            const uint32_t key = shared_.key[other];
            const bool less = key < key_;
            const bool apart = (less ? key_ - key : key - key_) > margin_;
            rank += less;
            sure += less && apart;
            close |= !apart && other != lane_;
        }
        const uint32_t unsure =
                lanes(real() && close && sure < in_.limit);
        if (unsure) {
            measure(unsure);
            const bool mine = unsure >> lane_ & 1;
            const double value = mine ? measures_->value[lane_] : 0;
            rank = 0;
#pragma unroll 1
            for (int other = 0; other < count_; other++) {
                rank += mine && unsure >> other & 1
                        ? nearer(other, value, number_)
                        : shared_.key[other] < key_;
            }
        }
        if (real() && rank < in_.limit) {
            to_[rank] = number_;
        }
    }

    /// ‖c_1 − c‖² of the lane's candidate, with a table.
    __device__ float from_first() const {
        return real() ? __ldg(in_.between +
                              (int64_t)shared_.number[first_] * in_.k +
                              number_)
                      : 0;
    }

    /** Candidates but the first one that may be the second list; `full`: not
     * known; 0: there is none. only_ is the one that it is, if that is known.
     *
     * Distances have one error of the row, and that of ‖x'‖² is common to
     * all. For air, score_j / (1 + λ/2) less what does not depend on j is
     * d_j − λ/(2 + λ) ‖c_1 − c_j‖², which for j = 1 stands for no second
     * list.
     */
    __device__ uint32_t best_ones() {
        if (!in_.between) {
            return full;
        }
        const bool air = in_.rule == AssignmentRule::air;
        const float lambda = from_.lambda;
        const float gap = from_first();
        float least, most;
        if (air) {
            const float part = from_.air_part * gap;
            const float off = error_ + doubt * (fabsf(dist_) + part);
            least = dist_ - part - off;
            most = dist_ - part + off;
        } else {
            const float first = __shfl_sync(full, dist_, first_);
            const float off =
                    dist_error_ + doubt * (fabsf(dist_) + fabsf(first) + gap);
            if (lanes(real() && !(first > 16 * off))) {
                return full;
            }
            // S = d_j + λ dot² / d_1, 2 dot = d_1 + d_j − gap. First order:
            // dS = (1 + λr) dd_j + λ(r − r²) dd_1, r = dot / d_1
            const float share = 0.5f * (first + dist_ - gap) / first;
            const float far = 1 + fabsf(share);
            const float both = fabsf(1 + lambda * share) +
                    lambda * fabsf(share - share * share) +
                    1.2f * lambda * far * far * off / first;
            const float score = dist_ + lambda * share * share * first;
            const float error = off * both + 4 * doubt * fabsf(score);
            least = score - error;
            most = score + error;
        }
        bool alive = real() && (lane_ != first_ || (air && !in_.strict));
        int winner;
        for (;;) {
            if (!lanes(alive)) {
                return 0;
            }
            const uint32_t mine = alive ? ordered(most) : full;
            const uint32_t best = __reduce_min_sync(full, mine);
            winner = __ffs(lanes(alive && mine == best)) - 1;
            const int is = looked_at(winner);
            if (is < 0) {
                return full;
            }
            if (is) {
                break;
            }
            alive = alive && lane_ != winner;
        }
        const float bound = __shfl_sync(full, most, winner);
        const uint32_t others =
                lanes(alive && !(least > bound)) & ~(1u << winner);
        const uint32_t kept = looked_at_of(others);
        if (kept == 0) {
            only_ = winner == first_ ? -1 : winner;
            return only_ < 0 ? 0 : 1u << winner;
        }
        return kept == full ? full
                            : (kept | 1u << winner) & ~(1u << first_);
    }

    /// Candidates that closure may choose besides the first one; `full`: not
    /// known.
    __device__ uint32_t near_ones() const {
        const float first = __shfl_sync(full, dist_, first_);
        const float off = dist_error_ + doubt * fabsf(dist_);
        const float reach =
                from_.reach * (first + dist_error_) * (1 + doubt);
        bool near = real() && lane_ != first_ && !(dist_ - off > reach);
        if (in_.between) {
            // nearer to the first one than to x
            near = near && !(from_first() * (1 + doubt) < dist_ - off);
        }
        return looked_at_of(lanes(near));
    }

    idx_t* const to_;
    int first_ = 0;
    int only_ = -1; ///< the second list, where that is known
};

} // namespace faiss_flash
