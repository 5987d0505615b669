// Shortlists to posting lists. Keys are distances up to an error, which is
// enough for most rows; of the others, the candidates that can matter are
// measured, and the rule is applied to those alone.

#include <faiss_flash/cuda/policies/choose_rules.cuh>
#include <faiss_flash/cuda/policies/choose_shortlist.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / 32;
constexpr uint32_t full = 0xffffffff;
/// Rounding of what is computed here from single-precision distances.
constexpr float doubt = 0x1p-20f;

/// What a warp works on: a lane has one candidate.
struct RowShared {
    uint32_t key[32];
    uint32_t number[32];
    double value[32]; ///< −dist, of those that were measured
    int measured[32]; ///< lanes
    RowCandidates candidates;
};

/// The float's place in the order of integers.
__device__ inline uint32_t ordered(float value) {
    const uint32_t bits = __float_as_uint(value);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

/// Error of the relative distances of a row, in prepared units.
__device__ inline float row_error(
        const ShortlistTerms& terms,
        int d,
        float norm,
        float error) {
    const float sum = norm + terms.norm;
    return score_error(true, d, norm, error, terms.norm, terms.error) +
            (d / 32 + 16) * 0x1p-24f * sum * sum;
}

/// A key that at least m of the row's keys do not exceed, and few more.
/// @param low   the smallest of them
/// @param high  one that at least m of them do not exceed
__device__ inline uint32_t nearly_rank(
        const uint32_t (&key)[shortlist_kept],
        int m,
        uint32_t low,
        uint32_t high) {
    // 6 halvings leave about one too many
    for (int step = 0; step < 10 && high > low; step++) {
        const uint32_t middle = low + (high - low) / 2;
        int below = 0;
#pragma unroll
        for (int e = 0; e < shortlist_kept; e++) {
            below += key[e] <= middle;
        }
        const int count = __reduce_add_sync(full, below);
        if (count < m) {
            low = middle + 1;
        } else {
            high = middle;
            if (count <= m + 1) {
                break;
            }
        }
    }
    return high;
}

/// One row; the warp's lanes all call.
template <bool aligned, RuleKind kind>
class ShortlistChooser {
   public:
    __device__ ShortlistChooser(
            const ChooseInput& in,
            RowShared& shared,
            int64_t row,
            idx_t* to)
            : in_(in), shared_(shared), row_(row), to_(to) {}

    /// Whether the candidates that matter are here, one for each lane.
    __device__ bool find(const ShortlistView& from, int64_t i) {
        const ShortlistTerms terms = *from.terms;
        const float norm = from.norm[i];
        const float off =
                row_error(terms, in_.d, norm, from.error[i]) * terms.scale +
                0x1p-23f;
        // written so that NaN is none
        if (!(norm <= terms.row_norm && off <= shortlist_room)) {
            return false;
        }
        margin_ = ((uint32_t)(2 * off * 0x1p24f) + 2) << shortlist_column_bits;
        const int groups = from.groups.count();
        uint32_t key[shortlist_kept] = {full, full, full, full};
        if (lane_ < groups) {
            const uint4 four = __ldcs(
                    reinterpret_cast<const uint4*>(from.lists.keys) +
                    i * groups + lane_);
            key[0] = four.x, key[1] = four.y;
            key[2] = four.z, key[3] = four.w;
        }
        const uint32_t best = min(min(key[0], key[1]), min(key[2], key[3]));
        const uint32_t low = __reduce_min_sync(full, best);
        // the worst of 16 pairs' bests, or of 8 fours'
        uint32_t high = min(best, __shfl_xor_sync(full, best, 16));
        if (in_.candidates <= 8) {
            high = min(high, __shfl_xor_sync(full, high, 8));
        }
        high = __reduce_max_sync(full, high);
        if (high >= shortlist_none) {
            high = shortlist_none - 1;
            int real = 0;
#pragma unroll
            for (int e = 0; e < shortlist_kept; e++) {
                real += key[e] <= high;
            }
            if (__reduce_add_sync(full, real) < in_.candidates) {
                return false;
            }
        }
        const uint32_t most =
                nearly_rank(key, in_.candidates, low, high) + margin_;
        if (most >= terms.ceiling || from.lists.bounds[i] <= most) {
            return false;
        }
        count_ = 0;
#pragma unroll
        for (int e = 0; e < shortlist_kept; e++) {
            const bool near = key[e] <= most;
            const uint32_t mask = __ballot_sync(full, near);
            const int at = count_ + __popc(mask & ((1u << lane_) - 1));
            if (near && at < 32) {
                shared_.key[at] = key[e];
                shared_.number[at] = from.groups.column(lane_, key[e]);
            }
            count_ += __popc(mask);
        }
        if (count_ > 32) {
            return false;
        }
        __syncwarp(); // candidates are there
        if (lane_ < count_) {
            key_ = shared_.key[lane_];
            number_ = shared_.number[lane_];
        }
        low_ = low;
        // in the units of the vectors; of a distance itself that of ‖x'‖²,
        // rounded up twice, counts too
        const float unit = 1 / from.unit;
        dist_ = (relative_dist(key_, terms) + norm * norm) * unit;
        error_ = off / terms.scale * unit;
        dist_error_ = error_ + (in_.d + 64) * 0x1p-22f * norm * norm * unit;
        return true;
    }

    __device__ void choose() {
        if constexpr (kind == RuleKind::ranks) {
            choose_first();
        } else {
            find_first();
            const uint32_t rest = kind == RuleKind::closure ? near_ones()
                                                            : best_ones();
            if (rest == full) {
                measure(candidates() & ~measured_);
                apply_rule(candidates());
            } else if (rest == 0) {
                write(-1);
            } else if (kind == RuleKind::direction && only_ >= 0) {
                write(only_);
            } else {
                const uint32_t all = rest | 1u << first_;
                measure(all & ~measured_);
                apply_rule(all);
            }
        }
    }

   private:
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
        if (which >> lane_ & 1) {
            shared_.measured[__popc(which & ((1u << lane_) - 1))] = lane_;
        }
        __syncwarp(); // who is measured is known
        const int total = __popc(which);
        const int group = lane_ / distance_lanes;
        for (int at0 = 0; at0 < total; at0 += 32 / distance_lanes) {
            const int at = at0 + group;
            const int who = shared_.measured[min(at, total - 1)];
            const double dist = distance<aligned>(
                    in_.d,
                    in_.x + row_ * in_.d,
                    in_.means + (int64_t)shared_.number[who] * in_.d);
            if (at < total && lane_ % distance_lanes == 0) {
                // where it is NaN, too
                shared_.value[who] = fmax(-dist, -(double)INFINITY);
            }
        }
        measured_ |= which;
        __syncwarp(); // values are there
    }

    /// Whether lane b's candidate is nearer; both were measured.
    __device__ bool nearer(int b, double value, uint32_t number) const {
        const double other = shared_.value[b];
        return other > value ||
                (other == value && shared_.number[b] < number);
    }

    /// The rule for some candidates, the nearest one among them; measured.
    __device__ void apply_rule(uint32_t which) {
        if (which >> lane_ & 1) {
            const double value = shared_.value[lane_];
            int rank = 0;
            for (uint32_t left = which; left; left &= left - 1) {
                rank += nearer(__ffs(left) - 1, value, number_);
            }
            if (rank < in_.candidates) {
                shared_.candidates.number[rank] = number_;
                shared_.candidates.value[rank] = value;
            }
        }
        if (lane_ == 0) {
            shared_.candidates.count = min(__popc(which), in_.candidates);
        }
        __syncwarp(); // candidates are in order
        RowChooser<aligned, kind>(in_, shared_.candidates).choose(0, to_);
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
            const double value = mine ? shared_.value[lane_] : 0;
            rank = 0;
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

    /// Which candidate is the nearest.
    __device__ void find_first() {
        uint32_t who = lanes(real() && key_ <= low_ + margin_);
        if (who & (who - 1)) {
            measure(who);
            int best = __ffs(who) - 1;
            for (who &= who - 1; who; who &= who - 1) {
                const int b = __ffs(who) - 1;
                best = nearer(b, shared_.value[best], shared_.number[best])
                        ? b
                        : best;
            }
            first_ = best;
        } else {
            first_ = __ffs(who) - 1;
        }
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
        only_ = -1;
        if (!in_.between) {
            return full;
        }
        const bool air = in_.rule == AssignmentRule::air;
        const float lambda = in_.lambda;
        const float gap = from_first();
        float least, most;
        if (air) {
            const float part = lambda / (2 + lambda) * gap;
            const float off = error_ + doubt * (fabsf(dist_) + part);
            least = dist_ - part - off;
            most = dist_ - part + off;
        } else {
            const float first = __shfl_sync(full, dist_, first_);
            const float off = dist_error_ + doubt * (fabsf(dist_) + gap);
            const float dot = 0.5f * fabsf(first + dist_ - gap);
            const float low = fmaxf(dot - 1.5f * off, 0);
            const float high = dot + 1.5f * off;
            const float first_error =
                    dist_error_ + doubt * fabsf(first);
            if (!(first > 2 * first_error)) {
                return full;
            }
            least = dist_ - off +
                    lambda * low * low / (first + first_error) * (1 - doubt);
            most = dist_ + off +
                    lambda * high * high / (first - first_error) *
                            (1 + doubt);
        }
        bool alive = real() && (lane_ != first_ || (air && !in_.strict));
        int winner;
        for (;;) {
            if (!lanes(alive)) {
                return 0;
            }
            const uint32_t mine = alive ? ordered(most) : full;
            const uint32_t best = __reduce_min_sync(full, mine);
            winner = __ffs(lanes(mine == best)) - 1;
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
        if (!others) {
            only_ = winner;
            return winner == first_ ? 0 : 1u << winner;
        }
        const uint32_t kept = looked_at_of(others);
        if (kept == full) {
            return full;
        }
        only_ = kept ? -1 : winner;
        const uint32_t all =
                (kept | 1u << winner) & ~(1u << first_);
        return all;
    }

    /// Candidates that closure may choose besides the first one; `full`: not
    /// known.
    __device__ uint32_t near_ones() const {
        const float first = __shfl_sync(full, dist_, first_);
        const float off = dist_error_ + doubt * fabsf(dist_);
        const float reach =
                (float)in_.reach * (first + dist_error_) * (1 + doubt);
        bool near = real() && lane_ != first_ && !(dist_ - off > reach);
        if (in_.between) {
            // nearer to the first one than to x
            near = near && !(from_first() * (1 + doubt) < dist_ - off);
        }
        return looked_at_of(lanes(near));
    }

    const ChooseInput& in_;
    RowShared& shared_;
    const int64_t row_;
    idx_t* to_;
    const int lane_ = threadIdx.x % 32;
    int count_ = 0;
    uint32_t low_ = 0;    ///< smallest key
    uint32_t margin_ = 0; ///< keys that differ by more are in order
    uint32_t key_ = full, number_ = 0;
    uint32_t measured_ = 0;
    int first_ = 0, only_ = -1;
    float dist_ = 0;       ///< ‖x − c‖², within dist_error_
    float error_ = 0;      ///< of differences of them, half of it
    float dist_error_ = 0;
};

/// One warp a row.
template <bool aligned, RuleKind kind>
__global__ void __launch_bounds__(threads, 4)
        choose_shortlist_kernel(
                const ChooseInput in,
                const ShortlistView from,
                int64_t n,
                int64_t first,
                idx_t* __restrict__ to,
                uint32_t* __restrict__ open,
                uint32_t* __restrict__ n_open) {
    __shared__ RowShared all[warps];
    const int64_t i = ((int64_t)blockIdx.x * threads + threadIdx.x) / 32;
    if (i >= n) {
        return;
    }
    ShortlistChooser<aligned, kind> chooser(
            in,
            all[threadIdx.x / 32],
            first + i,
            to + (first + i) * in.limit);
    if (chooser.find(from, i)) {
        chooser.choose();
    } else if (threadIdx.x % 32 == 0) {
        open[atomicAdd(n_open, 1u)] = first + i;
    }
}

} // namespace

cudaError_t launch_choose_shortlist(
        const ChooseInput& in,
        const ShortlistView& from,
        int64_t n,
        int64_t first,
        idx_t* to,
        uint32_t* open,
        uint32_t* n_open,
        cudaStream_t stream) {
    with_rule(in, [&](auto aligned, auto kind) {
        choose_shortlist_kernel<aligned, kind>
                <<<(n + warps - 1) / warps, threads, 0, stream>>>(
                        in, from, n, first, to, open, n_open);
    });
    return cudaGetLastError();
}

} // namespace faiss_flash
