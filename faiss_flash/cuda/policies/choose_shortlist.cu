// Shortlists to posting lists. Keys are distances up to an error, which is
// enough for most rows; of the others, the candidates that can matter are
// measured, and the rule is applied to those alone.

#include <algorithm>

#include <faiss_flash/cuda/policies/shortlist_rules.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;
constexpr int warps = threads / 32;

/// One warp a row. What keys settle; rows that they do not are `unsettled`.
template <RuleKind kind>
__global__ void __launch_bounds__(threads, 6) choose_by_keys_kernel(
        const ChooseInput in,
        const ShortlistView from,
        int n,
        int64_t first,
        idx_t* __restrict__ to,
        const RowCount unsettled,
        const RowCount open) {
    __shared__ RowKeys shared[warps];
    const int step = gridDim.x * warps;
    const ShortlistTerms terms = *from.terms;
    int i = blockIdx.x * warps + threadIdx.x / 32;
    if (i >= n) {
        return;
    }
    RowShortlist next;
    next.load(from, i);
    for (; i < n; i += step) {
        const RowShortlist row = next;
        if (i + step < n) {
            next.load(from, i + step);
        }
        ShortlistChooser<true, kind, false> chooser(
                in,
                from,
                terms,
                shared[threadIdx.x / 32],
                nullptr,
                first + i,
                to + (first + i) * in.limit);
        const bool found = chooser.find(row);
        if (!(found && chooser.choose()) && threadIdx.x % 32 == 0) {
            if (found) {
                unsettled.add(i);
            } else {
                open.add(first + i);
            }
        }
        __syncwarp(); // shared memory is for the next row
    }
}

/// The same with distances.
/// @param numbers  rows of the shortlists, or those from 0 to n
template <bool aligned, RuleKind kind>
__global__ void __launch_bounds__(threads, 4) choose_measured_kernel(
        const ChooseInput in,
        const ShortlistView from,
        const uint32_t* __restrict__ numbers,
        const uint32_t* __restrict__ count,
        int n,
        int64_t first,
        idx_t* __restrict__ to,
        const RowCount open) {
    __shared__ RowKeys shared[warps];
    __shared__ RowMeasures measures[warps];
    const int step = gridDim.x * warps;
    const ShortlistTerms& terms = *from.terms; // too many to keep
    n = numbers ? *count : n;
    for (int at = blockIdx.x * warps + threadIdx.x / 32; at < n; at += step) {
        const int i = numbers ? numbers[at] : at;
        RowShortlist row;
        row.load(from, i);
        ShortlistChooser<aligned, kind, true> chooser(
                in,
                from,
                terms,
                shared[threadIdx.x / 32],
                &measures[threadIdx.x / 32],
                first + i,
                to + (first + i) * in.limit);
        if (chooser.find(row)) {
            chooser.choose();
        } else if (threadIdx.x % 32 == 0) {
            open.add(first + i);
        }
        __syncwarp(); // shared memory is for the next row
    }
}

} // namespace

cudaError_t launch_choose_shortlist(
        const ChooseInput& in,
        const ShortlistView& from,
        int64_t n,
        int64_t first,
        idx_t* to,
        const RowCount& unsettled,
        const RowCount& open,
        int multiprocessors,
        cudaStream_t stream) {
    ShortlistView view = from;
    view.lambda = in.lambda;
    view.air_part = in.lambda / (2 + in.lambda);
    view.reach = in.reach;
    const cudaError_t error =
            cudaMemsetAsync(unsettled.count, 0, sizeof(uint32_t), stream);
    if (error != cudaSuccess) {
        return error;
    }
    const int64_t blocks = (n + warps - 1) / warps;
    with_rule(in, [&](auto aligned, auto kind) {
        const bool all = kind == RuleKind::ranks || !in.between;
        if constexpr (kind != RuleKind::ranks) {
            if (!all) {
                choose_by_keys_kernel<kind>
                        <<<std::min<int64_t>(blocks, 6 * multiprocessors),
                           threads,
                           0,
                           stream>>>(
                                in, view, n, first, to, unsettled, open);
            }
        }
        choose_measured_kernel<aligned, kind>
                <<<std::min<int64_t>(blocks, 4 * multiprocessors),
                   threads,
                   0,
                   stream>>>(
                        in,
                        view,
                        all ? nullptr : unsettled.rows,
                        unsettled.count,
                        n,
                        first,
                        to,
                        open);
    });
    return cudaGetLastError();
}

} // namespace faiss_flash
