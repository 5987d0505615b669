#pragma once

// The rules of AssignmentPolicy.h for one row, by one warp.

#include <type_traits>

#include <faiss_flash/cuda/mixture/row_lanes.cuh>
#include <faiss_flash/cuda/policies/choose_lists.cuh>

namespace faiss_flash {

/// Lanes that share a distance: four distances at once.
constexpr int distance_lanes = 8;

/// What a lane adds to ‖a − b‖² over its part of the dimensions, for m
/// vectors b at once: their loads overlap. Differences come first: expanded
/// squares would cancel.
template <bool aligned, int m>
__device__ __forceinline__ void distance_parts(
        int d,
        const float* __restrict__ a,
        const float* const (&b)[m],
        float (&sum)[m]) {
    const int lane = threadIdx.x % distance_lanes;
    if constexpr (aligned) {
        for (int j = 4 * lane; j < d; j += 4 * distance_lanes) {
            const float4 p = __ldg(reinterpret_cast<const float4*>(a + j));
#pragma unroll
            for (int i = 0; i < m; i++) {
                const float4 q =
                        __ldg(reinterpret_cast<const float4*>(b[i] + j));
                const float4 r = make_float4(
                        p.x - q.x, p.y - q.y, p.z - q.z, p.w - q.w);
                sum[i] = fmaf(r.x, r.x, sum[i]);
                sum[i] = fmaf(r.y, r.y, sum[i]);
                sum[i] = fmaf(r.z, r.z, sum[i]);
                sum[i] = fmaf(r.w, r.w, sum[i]);
            }
        }
    } else {
        for (int j = lane; j < d; j += distance_lanes) {
            const float p = __ldg(a + j);
#pragma unroll
            for (int i = 0; i < m; i++) {
                const float r = p - __ldg(b[i] + j);
                sum[i] = fmaf(r, r, sum[i]);
            }
        }
    }
}

/// ‖a − b‖² for m vectors b; every eight lanes have theirs. The whole warp
/// calls.
template <bool aligned, int m>
__device__ __forceinline__ void distances(
        int d,
        const float* a,
        const float* const (&b)[m],
        double (&dist)[m]) {
    float part[m] = {};
    distance_parts<aligned>(d, a, b, part);
    bool finite = true;
#pragma unroll
    for (int i = 0; i < m; i++) {
        part[i] = row_sum<distance_lanes>(part[i]);
        finite &= isfinite(part[i]);
        dist[i] = part[i];
    }
    if (!__all_sync(0xffffffff, finite)) {
        // finite data may have distances beyond single precision
#pragma unroll
        for (int i = 0; i < m; i++) {
            double sum = 0;
#pragma unroll 1
            for (int j = threadIdx.x % distance_lanes; j < d;
                 j += distance_lanes) {
                const double r = (double)a[j] - b[i][j];
                sum += r * r;
            }
            dist[i] = row_sum<distance_lanes>(sum);
        }
    }
}
template <bool aligned>
__device__ __forceinline__ double distance(
        int d,
        const float* a,
        const float* b) {
    const float* const one[1] = {b};
    double dist[1];
    distances<aligned>(d, a, one, dist);
    return dist[0];
}

/// Σ_j w_j (a_j − b_j)²; every eight lanes have theirs. The whole warp calls.
template <bool aligned>
__device__ __forceinline__ double weighted_distance(
        int d,
        const float* __restrict__ a,
        const float* __restrict__ b,
        const float* __restrict__ weights) {
    const int lane = threadIdx.x % distance_lanes;
    float part = 0;
    if constexpr (aligned) {
#pragma unroll 2
        for (int j = 4 * lane; j < d; j += 4 * distance_lanes) {
            const float4 p = __ldg(reinterpret_cast<const float4*>(a + j));
            const float4 q = __ldg(reinterpret_cast<const float4*>(b + j));
            const float4 w =
                    __ldg(reinterpret_cast<const float4*>(weights + j));
            const float4 r = make_float4(
                    p.x - q.x, p.y - q.y, p.z - q.z, p.w - q.w);
            part = fmaf(w.x * r.x, r.x, part);
            part = fmaf(w.y * r.y, r.y, part);
            part = fmaf(w.z * r.z, r.z, part);
            part = fmaf(w.w * r.w, r.w, part);
        }
    } else {
        for (int j = lane; j < d; j += distance_lanes) {
            const float r = __ldg(a + j) - __ldg(b + j);
            part = fmaf(__ldg(weights + j) * r, r, part);
        }
    }
    part = row_sum<distance_lanes>(part);
    if (__all_sync(0xffffffff, isfinite(part))) {
        return part;
    }
    double sum = 0;
#pragma unroll 1
    for (int j = lane; j < d; j += distance_lanes) {
        const double r = (double)a[j] - b[j];
        sum += weights[j] * r * r;
    }
    return row_sum<distance_lanes>(sum);
}

/// Candidates of one row, best first, in shared memory.
struct RowCandidates {
    uint32_t number[choose_most];
    double value[choose_most]; ///< −dist, or log p(x, k)
    int count;
};

/// A score and its place in the order of candidates; the smaller one wins.
struct RuleScore {
    double score;
    int at;

    __device__ void see(double other, int place) {
        if (other < score || (other == score && place < at)) {
            score = other;
            at = place;
        }
    }
};

/// What rules look at.
enum class RuleKind {
    ranks,     ///< values and their order
    direction, ///< residuals of the first candidate and each other one
    closure    ///< distances between centroids
};

inline RuleKind kind_of(AssignmentRule rule) {
    switch (rule) {
        case AssignmentRule::closure:
            return RuleKind::closure;
        case AssignmentRule::air:
        case AssignmentRule::soar:
            return RuleKind::direction;
        default:
            return RuleKind::ranks;
    }
}

/// fn(aligned, kind) with both as constants.
template <class Fn>
void with_rule(const ChooseInput& in, Fn&& fn) {
    const auto with_kind = [&](auto aligned) {
        switch (kind_of(in.rule)) {
            case RuleKind::ranks:
                return fn(aligned, std::integral_constant<RuleKind, RuleKind::ranks>());
            case RuleKind::direction:
                return fn(aligned, std::integral_constant<RuleKind, RuleKind::direction>());
            case RuleKind::closure:
                return fn(aligned, std::integral_constant<RuleKind, RuleKind::closure>());
        }
    };
    if (in.aligned()) {
        with_kind(std::true_type());
    } else {
        with_kind(std::false_type());
    }
}

/// Lists of a row; the warp's lanes all call.
template <bool aligned, RuleKind kind>
class RowChooser {
   public:
    __device__ RowChooser(
            const ChooseInput& in,
            const RowCandidates& candidates)
            : in_(in), candidates_(candidates) {}

    /// @param log_total  log p(x) where responsibilities decide
    /// @param to         (limit)
    __device__ void choose(double log_total, idx_t* to) const {
        const int lane = threadIdx.x % 32;
        if constexpr (kind == RuleKind::closure) {
            choose_closure(to);
        } else if constexpr (kind == RuleKind::direction) {
            const int second = second_list();
            if (lane < 2) {
                to[lane] = lane == 0 ? number(0)
                        : second < 0 ? -1
                                     : number(second);
            }
        } else if (lane < in_.limit) {
            const bool kept = lane < candidates_.count &&
                    (lane == 0 || !in_.components ||
                     candidates_.value[lane] - log_total > in_.log_tau);
            to[lane] = kept ? number(lane) : -1;
        }
    }

   private:
    __device__ idx_t number(int at) const {
        return candidates_.number[at];
    }
    __device__ const float* centroid(int at) const {
        return in_.means + number(at) * in_.d;
    }
    __device__ double dist(int at) const {
        return -candidates_.value[at];
    }

    /// ‖c_i − c_j‖² of two candidates, from the table if there is one.
    __device__ double between(int i, int j) const {
        return in_.between ? in_.between[number(i) * in_.k + number(j)]
                           : distance<aligned>(in_.d, centroid(i), centroid(j));
    }

    /// Its place; −1: none. The product of residuals comes from distances:
    /// 2 r_1ᵀr_j = ‖r_1‖² + ‖r_j‖² − ‖c_1 − c_j‖².
    __device__ int second_list() const {
        const bool air = in_.rule == AssignmentRule::air;
        const double first = dist(0);
        RuleScore best = {
                air && !in_.strict ? (1 + in_.lambda) * first : INFINITY, 0};
        const int lane = threadIdx.x % 32;
        // a lane for each candidate, or eight
        const int lanes = in_.between ? 1 : distance_lanes;
        for (int j0 = 1; j0 < candidates_.count; j0 += 32 / lanes) {
            const int j = j0 + lane / lanes;
            const int at = min(j, candidates_.count - 1);
            const double dot = (first + dist(at) - between(0, at)) / 2;
            // soar: times ‖r_1‖², which orders as well; r_1 = 0 has no
            // direction, and the term's limit is 0
            const double score = air ? dist(at) + in_.lambda * dot
                    : first > 0 ? dist(at) * first + in_.lambda * dot * dot
                                : dist(at);
            if (j < candidates_.count) {
                best.see(score, at);
            }
        }
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const double score =
                    __shfl_xor_sync(0xffffffff, best.score, step);
            const int at = __shfl_xor_sync(0xffffffff, best.at, step);
            best.see(score, at);
        }
        // place 0 is the first list alone, which wins ties
        return best.at == 0 ? -1 : best.at;
    }

    __device__ void choose_closure(idx_t* to) const {
        const int lane = threadIdx.x % 32;
        const double bound = in_.reach * dist(0);
        const int lanes = in_.between ? 1 : distance_lanes;
        int chosen = 1;
        // the chosen candidate of each place, kept by the lane
        int mine = 0;
        for (int j = 1; j < candidates_.count && chosen < in_.limit; j++) {
            const double norm2 = dist(j);
            if (norm2 > bound) {
                break;
            }
            bool shadowed = false;
            for (int i0 = 0; i0 < chosen; i0 += 32 / lanes) {
                const int i = min(i0 + lane / lanes, chosen - 1);
                const int other = __shfl_sync(0xffffffff, mine, i);
                shadowed |= between(j, other) < norm2;
            }
            if (!__any_sync(0xffffffff, shadowed)) {
                mine = lane == chosen ? j : mine;
                chosen++;
            }
        }
        if (lane < in_.limit) {
            to[lane] = lane < chosen ? number(mine) : -1;
        }
    }

    const ChooseInput& in_;
    const RowCandidates& candidates_;
};

} // namespace faiss_flash
