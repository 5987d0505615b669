#include <algorithm>

#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/policies/share_shortlists.cuh>

namespace faiss_flash {

namespace {

constexpr int threads = 256;

ShortlistGroups groups_of(int k) {
    ShortlistGroups groups; // a tile each
    groups.slots = (k + assign_columns - 1) / assign_columns;
    return groups;
}

int padded(int d) {
    return (d + 7) / 8 * 8;
}

/// Every block finds the range for itself.
__global__ void __launch_bounds__(threads) share_costs_kernel(
        int k,
        int k_padded,
        int d,
        const float2* __restrict__ columns,
        const ComponentTerms* __restrict__ components,
        float2* __restrict__ costs,
        ShareScale* __restrict__ out) {
    __shared__ float all[threads];
    float most = -INFINITY;
    for (int c = threadIdx.x; c < k; c += threads) {
        const float log_scale = components[c].log_scale;
        most = fmaxf(most, isfinite(log_scale) ? log_scale : most);
    }
    all[threadIdx.x] = most;
    __syncthreads(); // every thread's part is there
    for (int step = threads / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            all[threadIdx.x] =
                    fmaxf(all[threadIdx.x], all[threadIdx.x + step]);
        }
        __syncthreads(); // this level is done
    }
    most = all[0];
    // No density is above `most`, few scores much. A vector has about d / 2
    // nats less under its own component; one without any score within the
    // range has no shortlist.
    const float range = exp2f(ceilf(log2f(fmaxf(8192, 128.f * d))));
    const float scale = 0.5f / range;
    const float top = most + range / 8;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *out = {scale, top};
    }
    const int c = blockIdx.x * threads + threadIdx.x;
    if (c >= k_padded) {
        return;
    }
    const float2 column = columns[c];
    // what is added rounds: upwards, as all of a score does
    const float a = column.x + 0x1p-21f * fabsf(column.x) +
            0x1p-21f * (fabsf(top) + range);
    costs[c] = c < k && column.x > -INFINITY
            ? make_float2(0.5f + scale * (top - a), scale * column.y)
            : make_float2(INFINITY, 0);
}

} // namespace

ShareShortlists::ShareShortlists(
        int64_t rows,
        int k,
        int d,
        cudaStream_t stream)
        : k_(k),
          d_(d),
          mixture_(rows, k, d, stream),
          groups_(groups_of(k)),
          keys_(rows * groups_.count() * shortlist_kept, stream),
          bounds_(rows, stream),
          costs_(k + assign_columns, stream),
          scale_(1, stream) {}

size_t ShareShortlists::bytes(int64_t rows, int k, int d) {
    return DiagonalMixture::bytes(rows, k, d) +
            rows * (groups_of(k).count() * shortlist_kept + 1) *
            sizeof(uint32_t) +
            (k + assign_columns) * sizeof(float2);
}

int64_t ShareShortlists::usual_rows(int k, int d) {
    const size_t each = groups_of(k).count() * shortlist_kept *
                    sizeof(uint32_t) +
            2 * padded(d) * sizeof(__half);
    return std::max<int64_t>((size_t(1) << 29) / each >> 13 << 13, 1 << 13);
}

void ShareShortlists::prepare(
        const float* means,
        const Shift& shift,
        cudaStream_t stream) {
    means_ = means;
    shift_ = shift;
    mixture_.prepare(means, shift, true, stream);
    const int k_padded = mixture_.means().k_padded;
    share_costs_kernel<<<
            (k_padded + threads - 1) / threads,
            threads,
            0,
            stream>>>(
            k_,
            k_padded,
            d_,
            mixture_.terms().columns,
            mixture_.components(),
            costs_.get(),
            scale_.get());
    FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
}

ShareView ShareShortlists::fill(
        int64_t n,
        const float* x,
        int multiprocessors,
        cudaStream_t stream) {
    mixture_.prepare_rows(n, x, shift_, stream);
    ShortlistInput in;
    in.rows = mixture_.rows();
    in.k_padded = mixture_.means().k_padded;
    in.means = mixture_.means().halves;
    in.groups = groups_;
    in.costs = costs_.get();
    ShareView view;
    view.lists = {keys_.get(), bounds_.get()};
    launch_shortlist(in, view.lists, multiprocessors, stream);
    view.groups = groups_;
    view.scale = scale_.get();
    view.slack = in.rows.norm;
    view.range = mixture_range(k_);
    view.d = d_;
    view.k = k_;
    view.x = x;
    view.means = means_;
    view.components = mixture_.components();
    view.half_precisions = mixture_.half_precisions();
    return view;
}

} // namespace faiss_flash
