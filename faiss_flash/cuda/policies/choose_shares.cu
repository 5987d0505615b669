// Shortlists of components to lists or responsibilities.

#include <faiss_flash/cuda/mixture/top.cuh>
#include <faiss_flash/cuda/policies/choose_rules.cuh>
#include <faiss_flash/cuda/policies/share_shortlists.cuh>
#include <faiss_flash/cuda/warp.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / 32;
constexpr uint32_t full = 0xffffffff;
/// How far scores are above log densities, at most, of most rows' best ones:
/// if not, components are looked for a second time.
constexpr double usual_excess = 2;

/// What a warp works on.
struct RowShares {
    uint32_t number[32];
    double value[32]; ///< log p(x, k)
};

/// One row; the warp's lanes all call.
template <bool aligned>
class ShareChooser {
   public:
    __device__ ShareChooser(
            const ShareView& from,
            int64_t i,
            RowShares& shared)
            : from_(from),
              i_(i),
              shared_(shared),
              keys_(reinterpret_cast<const uint4*>(from.lists.keys) +
                    i * from.groups.count()) {}

    /// Whether all components that matter are here.
    __device__ bool find() {
        const ShareScale scale = *from_.scale;
        first_ = load(lane_);
        uint32_t low = least(first_);
#pragma unroll 1
        for (int g = lane_ + 32; g < from_.groups.count(); g += 32) {
            low = min(low, least(load(g)));
        }
        low = __reduce_min_sync(full, low);
        if (low >= shortlist_none || !(from_.slack[i_] > -INFINITY)) {
            return false;
        }
        uint32_t limit = low +
                ((uint32_t)((from_.range + usual_excess) * scale.scale *
                            0x1p24)
                 << shortlist_column_bits);
#pragma unroll 1
        for (int attempt = 0; attempt < 2; attempt++) {
            if (limit >= shortlist_none || from_.lists.bounds[i_] <= limit ||
                !collect(limit)) {
                return false;
            }
            measure();
            rank();
            const uint32_t needed = scale.key_of(top_ - from_.range);
            if (needed <= limit) {
                return top_ > -INFINITY;
            }
            limit = needed;
        }
        return false;
    }

    // of the lane's component
    __device__ bool real() const {
        return lane_ < count_;
    }
    __device__ uint32_t number() const {
        return shared_.number[lane_];
    }
    __device__ int place() const {
        return place_;
    }
    __device__ double log_share() const {
        return shared_.value[lane_] - log_total_;
    }
    __device__ double log_total() const {
        return log_total_;
    }

   private:
    __device__ uint4 load(int group) const {
        return group < from_.groups.count()
                ? __ldcs(keys_ + group)
                : make_uint4(full, full, full, full);
    }
    static __device__ uint32_t least(const uint4& keys) {
        return min(min(keys.x, keys.y), min(keys.z, keys.w));
    }

    __device__ bool collect(uint32_t limit) {
        count_ = 0;
        __syncwarp(); // those of another attempt are read
#pragma unroll 1
        for (int g0 = 0; g0 < from_.groups.count(); g0 += 32) {
            const int g = g0 + lane_;
            const uint4 four = g0 == 0 ? first_ : load(g);
            const uint32_t key[shortlist_kept] = {
                    four.x, four.y, four.z, four.w};
#pragma unroll
            for (int e = 0; e < shortlist_kept; e++) {
                const bool near = key[e] <= limit;
                const uint32_t mask = __ballot_sync(full, near);
                const int at = count_ + __popc(mask & ((1u << lane_) - 1));
                if (near && at < 32) {
                    shared_.number[at] = from_.groups.column(g, key[e]);
                }
                count_ += __popc(mask);
            }
            if (count_ > 32) {
                return false;
            }
        }
        __syncwarp(); // components are there
        // padding can only be here where every score is out of range
        return !__any_sync(
                full, real() && shared_.number[lane_] >= (uint32_t)from_.k);
    }

    __device__ void measure() {
        constexpr int groups = 32 / distance_lanes;
#pragma unroll 1
        for (int at0 = 0; at0 < count_; at0 += groups) {
            const int at = at0 + lane_ / distance_lanes;
            const int64_t c = shared_.number[min(at, count_ - 1)];
            const double dist = weighted_distance<aligned>(
                    from_.d,
                    from_.x + i_ * from_.d,
                    from_.means + c * from_.d,
                    from_.half_precisions + c * from_.d);
            if (at < count_ && lane_ % distance_lanes == 0) {
                // where it is NaN, too
                shared_.value[at] = fmax(
                        from_.components[c].log_scale - dist,
                        -(double)INFINITY);
            }
        }
        __syncwarp(); // values are there
    }

    /// Order and total; few are looked at.
    __device__ void rank() {
        const double value = real() ? shared_.value[lane_] : -INFINITY;
        place_ = 0;
        top_ = -INFINITY;
#pragma unroll 1
        for (int other = 0; other < count_; other++) {
            const double theirs = shared_.value[other];
            place_ += theirs > value ||
                    (theirs == value && real() &&
                     shared_.number[other] < shared_.number[lane_]);
            top_ = fmax(top_, theirs);
        }
        log_total_ = top_ + logf(warp_sum(expf(float(value - top_))));
    }

    const ShareView& from_;
    const int64_t i_;
    RowShares& shared_;
    const uint4* const keys_;
    uint4 first_ = {}; ///< of the first 32 groups, the lane's
    const int lane_ = threadIdx.x % 32;
    int count_ = 0, place_ = 0;
    double top_ = 0, log_total_ = 0;
};

/// One warp a row.
template <bool aligned>
__global__ void __launch_bounds__(threads, 4) choose_shares_kernel(
        const ChooseInput in,
        const ShareView from,
        int64_t n,
        int64_t first,
        idx_t* __restrict__ to,
        const RowCount open) {
    __shared__ RowShares shared[warps];
    const int64_t i = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    if (i >= n) {
        return;
    }
    const int lane = threadIdx.x % 32;
    ShareChooser<aligned> row(from, i, shared[threadIdx.x / 32]);
    if (!row.find()) {
        if (lane == 0) {
            open.add(first + i);
        }
        return;
    }
    to += i * in.limit;
    const bool kept = row.real() && row.place() < in.limit &&
            (row.place() == 0 || row.log_share() > in.log_tau);
    if (kept) {
        to[row.place()] = row.number();
    }
    const int lists = __popc(__ballot_sync(full, kept));
    if (lane >= lists && lane < in.limit) {
        to[lane] = -1;
    }
}

template <bool aligned>
__global__ void __launch_bounds__(threads, 4) answer_shares_kernel(
        const ShareView from,
        int64_t n,
        const ShareAnswer to) {
    __shared__ RowShares shared[warps];
    const int64_t i = (int64_t)blockIdx.x * warps + threadIdx.x / 32;
    if (i >= n) {
        return;
    }
    const int lane = threadIdx.x % 32;
    idx_t* labels = to.labels + i * to.m;
    float* values = to.values + i * to.m;
    ShareChooser<aligned> row(from, i, shared[threadIdx.x / 32]);
    const bool found = row.find();
    const float share = found && row.real() ? expf(row.log_share()) : 0;
    const bool kept = share > 0 && row.place() < to.m;
    if (kept) {
        labels[row.place()] = row.number();
        values[row.place()] = share;
    }
    const int answers = __popc(__ballot_sync(full, kept));
    for (int j = answers + lane; j < to.m; j += 32) {
        labels[j] = found ? -1 : not_answered;
        values[j] = 0;
    }
    if (lane == 0) {
        to.log_density[i] = row.log_total();
    }
}

} // namespace

cudaError_t launch_choose_shares(
        const ChooseInput& in,
        const ShareView& from,
        int64_t n,
        int64_t first,
        idx_t* to,
        const RowCount& open,
        cudaStream_t stream) {
    const auto kernel = from.aligned() ? choose_shares_kernel<true>
                                       : choose_shares_kernel<false>;
    kernel<<<(n + warps - 1) / warps, threads, 0, stream>>>(
            in, from, n, first, to, open);
    return cudaGetLastError();
}

cudaError_t launch_answer_shares(
        const ShareView& from,
        int64_t n,
        const ShareAnswer& to,
        cudaStream_t stream) {
    const auto kernel = from.aligned() ? answer_shares_kernel<true>
                                       : answer_shares_kernel<false>;
    kernel<<<(n + warps - 1) / warps, threads, 0, stream>>>(from, n, to);
    return cudaGetLastError();
}

} // namespace faiss_flash
