#include <algorithm>
#include <cmath>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/policies/gather_rows.cuh>
#include <faiss_flash/cuda/policies/list_assigner.cuh>
#include <faiss_flash/cuda/policies/top_two.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace {

/// How the lists of a policy are found.
enum class Way {
    nearest,    ///< labels, as k-means has them
    two,        ///< two best scores where they are proved, then `shares`
    shares,     ///< all components that matter, listed from the best label
    candidates  ///< the nearest, listed from bests of groups
};

bool by_shares(const AssignmentPolicy& policy) {
    return policy.rule == AssignmentRule::responsibility;
}

/// Best centroids or components that the rule needs.
int candidates_of(const AssignmentPolicy& policy, int k) {
    return std::min(
            policy.compares_residuals() ? policy.candidates
                                        : policy.list_limit(),
            k);
}

Way way_of(const AssignmentPolicy& policy, int k, int capability) {
    const int limit = policy.list_limit();
    if (k == 1 || (limit == 1 && !by_shares(policy))) {
        return Way::nearest;
    }
    const bool two = limit <= 2 &&
            (by_shares(policy) || policy.rule == AssignmentRule::top_m);
    if (two && capability == 90) {
        return Way::two;
    }
    return by_shares(policy) ? Way::shares : Way::candidates;
}

ChooseInput choose_input(const AssignmentPolicy& policy, const Model& model) {
    ChooseInput in;
    in.rule = policy.rule;
    in.limit = policy.list_limit();
    in.candidates = candidates_of(policy, model.k);
    in.strict = policy.strict;
    in.log_tau = std::log(policy.share_limit(model.k));
    in.lambda = policy.lambda;
    in.reach = (1 + policy.epsilon) * (1 + policy.epsilon);
    in.d = model.d;
    in.k = model.k;
    return in;
}

/// Rows listed at once.
constexpr int64_t part_rows = 1 << 18;
/// Rows compared with all centroids at once need this many values at most.
constexpr int64_t most_values = 1 << 24;
/// Scores within this many nats of a row's best one are told apart.
constexpr float share_spread = 64;

int64_t least_part(int64_t rows) {
    return std::min(rows, part_rows);
}

/// A table of distances between centroids pays for its k² where there are
/// as many rows, up to so many centroids (64 MiB).
constexpr int most_between = 4096;

bool needs_between(const AssignmentPolicy& policy, int64_t rows, int k) {
    return policy.compares_residuals() && candidates_of(policy, k) > 1 &&
            rows >= k && k <= most_between;
}

/// Where the counters are.
enum Counter { unshared_at, unordered_at, left_at, unproved_at, counters };

__global__ void never_rise_kernel(int64_t n, RowLimit* limits) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        limits[i].rise = INFINITY;
    }
}

} // namespace

/// Device memory, and the rows in work.
struct ListAssigner::Work {
    Work(const AssignmentPolicy& policy,
         const Model& model,
         int64_t most_rows,
         const DeviceInfo& device,
         cudaStream_t stream)
            : way(way_of(policy, model.k, device.capability)),
              k(model.k),
              d(model.d),
              device(device),
              stream(stream),
              choose(choose_input(policy, model)),
              mixture(k, stream),
              counts(counters, stream),
              host_counts(counters * sizeof(uint32_t)) {
        const auto rows_of = [&](bool needed, int64_t each = 1) {
            return needed ? most_rows * each : 0;
        };
        const int64_t part = least_part(most_rows);
        const bool two = way == Way::two;
        if (way != Way::nearest) {
            lists = std::make_unique<RowLists>(part, stream);
            left = DeviceArray<uint32_t>(most_rows, stream);
        }
        if (way == Way::candidates) {
            group_best =
                    DeviceArray<float>(part * list_groups_per_row, stream);
        }
        if (needs_between(policy, most_rows, k)) {
            between = DeviceArray<float>((size_t)k * k, stream);
        }
        open_rows = DeviceArray<uint32_t>(rows_of(two, 4), stream);
        if (two) {
            const int d_padded = (d + 7) / 8 * 8;
            columns = DeviceArray<float2>(k + assign_columns, stream);
            scale = DeviceArray<CostScale>(1, stream);
            halves = DeviceArray<__half>(part * d_padded, stream);
            norm = DeviceArray<float>(part, stream);
            error = DeviceArray<float>(part, stream);
        }
        if (by_shares(policy) && way != Way::nearest) {
            mixture.set(model, stream);
            choose.components = mixture.components();
        }
    }

    RowNumbers numbers(Counter at, int64_t most_rows) const {
        uint32_t* rows =
                open_rows.get() + (at == unshared_at ? 0 : 2) * most_rows;
        return {rows, rows + most_rows, counts.get() + at};
    }
    uint32_t count(Counter at) const {
        return static_cast<const uint32_t*>(host_counts.get())[at];
    }

    const Way way;
    const int k, d;
    const DeviceInfo device;
    const cudaStream_t stream;
    ChooseInput choose;
    DeviceMixture mixture;
    DeviceArray<uint32_t> counts; ///< (counters)
    PinnedBuffer host_counts;
    Event counted;
    std::unique_ptr<RowLists> lists; ///< of part_rows
    DeviceArray<uint32_t> left, open_rows;
    DeviceArray<float> group_best, between, norm, error;
    DeviceArray<float2> columns;
    DeviceArray<CostScale> scale;
    DeviceArray<__half> halves;

    DeviceRows* rows = nullptr;
    PreparedRows prepared;
    PreparedCentroids centroids;
    ListTerms terms;
    idx_t* to = nullptr;
    Open open;
};

bool ListAssigner::can(const AssignmentPolicy& policy, const Model& model) {
    return candidates_of(policy, model.k) <= choose_most &&
            policy.list_limit() <= choose_most &&
            !(by_shares(policy) && model.is_diagonal());
}

ListAssigner::ListAssigner(
        const AssignmentPolicy& policy,
        const Model& model,
        int64_t rows,
        const DeviceInfo& device,
        cudaStream_t stream)
        : work_(std::make_unique<Work>(policy, model, rows, device, stream)) {}

ListAssigner::~ListAssigner() = default;

size_t ListAssigner::bytes(int64_t rows, int k, int d) {
    const int64_t part = least_part(rows);
    return 5 * rows * sizeof(uint32_t) + RowLists::bytes(part) +
            part * (list_groups_per_row * sizeof(float) +
                    (d + 7) / 8 * 8 * sizeof(__half) + 2 * sizeof(float)) +
            (k + assign_columns) *
                    (2 * sizeof(float2) + sizeof(float) +
                     sizeof(ComponentTerms)) +
            std::min<int64_t>(most_values, rows * k) * sizeof(double) +
            (k <= most_between && rows >= k ? (size_t)k * k * sizeof(float)
                                            : 0);
}

const ListAssigner::Open& ListAssigner::open() const {
    return work_->open;
}

void ListAssigner::begin(
        DeviceRows& rows,
        const float* x,
        const DeviceCentroids& means,
        idx_t* to) {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
    work.rows = &rows;
    work.prepared = rows.prepared();
    work.to = to;
    work.choose.x = x;
    work.choose.means = means.means();
    if (work.way == Way::nearest) {
        rows.assign(
                means, work.counts.get() + unproved_at, work.device, stream);
        FAISS_FLASH_CUDA_CHECK(launch_only_lists(
                work.prepared.n,
                work.choose.limit,
                rows.labels(),
                to,
                stream));
        stage("labels");
        return;
    }
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            work.counts.get(), 0, counters * sizeof(uint32_t), stream));
    work.centroids = means.prepared_for(work.prepared.typical, stream);
    work.terms = work.choose.components
            ? work.mixture.terms_for(
                      work.prepared,
                      work.centroids,
                      means.shift().scale,
                      stream)
            : work.mixture.terms_for_centroids(
                      work.prepared, work.centroids, true, stream);
    if (work.between.get() && !work.choose.between) {
        // the centroids of one object do not change
        FAISS_FLASH_CUDA_CHECK(
                launch_between(work.choose, work.between.get(), stream));
        work.choose.between = work.between.get();
    }
    switch (work.way) {
        case Way::two:
            find_two();
            break;
        case Way::shares:
            list_shares();
            break;
        default:
            list_candidates();
    }
    read_counts();
}

/// Counters on their way to the host.
void ListAssigner::read_counts() {
    Work& work = *work_;
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            work.host_counts.get(),
            work.counts.get(),
            counters * sizeof(uint32_t),
            cudaMemcpyDeviceToHost,
            work.stream));
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(work.counted.get(), work.stream));
}

void ListAssigner::find_two() {
    Work& work = *work_;
    const bool shares = work.choose.components;
    FAISS_FLASH_CUDA_CHECK(launch_cost_columns(
            work.prepared,
            work.centroids,
            work.terms,
            shares ? share_spread : 0,
            work.columns.get(),
            work.scale.get(),
            work.stream));
    const PreparedRows& rows = work.prepared;
    TopTwoInput in;
    in.rows = rows;
    in.k = work.k;
    in.k_padded = work.centroids.k_padded;
    in.means = work.centroids.halves;
    in.columns = work.columns.get();
    in.slack = work.terms.slack;
    in.scale = work.scale.get();
    in.lists = work.choose.limit;
    in.log_tau = shares ? work.choose.log_tau : -INFINITY;
    TopTwoOutput out;
    out.to = work.to;
    out.unshared = work.numbers(unshared_at, rows.n);
    out.unordered = work.numbers(unordered_at, rows.n);
    const auto launch = choose_assign_kernel(90, rows.d_padded) ==
                    AssignKernel::sm90
            ? launch_top_two_sm90
            : launch_top_two_sm90_deep;
    FAISS_FLASH_CUDA_CHECK(launch(
            tensor_map(
                    rows.halves, rows.n, rows.d_padded, assign_sm90_box_rows),
            tensor_map(
                    in.means,
                    in.k_padded,
                    rows.d_padded,
                    assign_sm90_box_columns),
            in,
            out,
            work.device.multiprocessors,
            work.stream));
    stage("two best");
}

void ListAssigner::list_candidates() {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
    const PreparedRows& all = work.prepared;
    for (int64_t first = 0; first < all.n; first += part_rows) {
        const PreparedRows rows =
                all.slice(first, std::min(part_rows, all.n - first));
        RowLists& lists = *work.lists;
        FAISS_FLASH_CUDA_CHECK(
                launch_row_norms(rows, true, lists.limits(), stream));
        lists.fill_groups(
                rows,
                work.centroids,
                work.terms,
                work.group_best.get(),
                work.device,
                stream);
        FAISS_FLASH_CUDA_CHECK(launch_group_limits(
                rows,
                work.terms,
                work.choose.candidates,
                work.group_best.get(),
                lists.limits(),
                stream));
        stage("groups");
        lists.fill(rows, work.centroids, work.terms, work.device, stream);
        stage("list");
        choose_listed(work.choose, rows.n, first, nullptr);
        stage("choose");
    }
}

void ListAssigner::list_shares() {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
    work.rows->assign_unchecked(
            work.centroids,
            work.counts.get() + unproved_at,
            work.device,
            stream);
    stage("labels");
    const PreparedRows& all = work.prepared;
    for (int64_t first = 0; first < all.n; first += part_rows) {
        const PreparedRows rows =
                all.slice(first, std::min(part_rows, all.n - first));
        RowLists& lists = *work.lists;
        FAISS_FLASH_CUDA_CHECK(launch_row_limits(
                rows,
                work.centroids,
                work.terms,
                work.rows->labels() + first,
                mixture_range(work.k),
                lists.limits(),
                stream));
        lists.fill(rows, work.centroids, work.terms, work.device, stream);
        stage("list");
        choose_listed(work.choose, rows.n, first, nullptr);
        stage("choose");
    }
}

/// The lists just filled, of rows from `first` on or of the given ones, to
/// posting lists.
void ListAssigner::choose_listed(
        const ChooseInput& in,
        int64_t n,
        int64_t first,
        const uint32_t* numbers) {
    Work& work = *work_;
    FAISS_FLASH_CUDA_CHECK(launch_choose_listed(
            in,
            n,
            first,
            numbers,
            work.lists->parts(),
            work.lists->lists(),
            work.to,
            work.left.get(),
            work.counts.get() + left_at,
            work.stream));
}

/// Rows that the two best scores left open.
void ListAssigner::settle(
        const RowNumbers& open,
        int64_t count,
        bool ordered) {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
    ChooseInput in = work.choose;
    if (ordered) {
        in.log_tau = -INFINITY; // that there are so many lists is known
    }
    for (int64_t i = 0; i < count; i += part_rows) {
        PreparedRows rows = work.prepared;
        rows.n = std::min(part_rows, count - i);
        FAISS_FLASH_CUDA_CHECK(launch_gather_rows(
                rows,
                rows.n,
                open.rows + i,
                work.halves.get(),
                work.norm.get(),
                work.error.get(),
                stream));
        rows.halves = work.halves.get();
        rows.norm = work.norm.get();
        rows.error = work.error.get();
        RowLists& lists = *work.lists;
        FAISS_FLASH_CUDA_CHECK(launch_row_limits(
                rows,
                work.centroids,
                work.terms,
                open.columns + i,
                ordered ? 0 : mixture_range(work.k),
                lists.limits(),
                stream));
        if (ordered) {
            never_rise_kernel<<<(rows.n + 255) / 256, 256, 0, stream>>>(
                    rows.n, lists.limits());
            FAISS_FLASH_CUDA_CHECK(cudaGetLastError());
        }
        stage("gather");
        lists.fill(rows, work.centroids, work.terms, work.device, stream);
        stage("list");
        choose_listed(in, rows.n, 0, open.rows + i);
        stage("choose");
    }
}

void ListAssigner::compare_with_all(const uint32_t* rows, int64_t count) {
    Work& work = *work_;
    const int64_t most = std::max<int64_t>(1, most_values / work.k);
    const int64_t at_once = std::min(count, most);
    const DeviceArray<double> values(at_once * work.k, work.stream);
    for (int64_t i = 0; i < count; i += at_once) {
        FAISS_FLASH_CUDA_CHECK(launch_choose_of_all(
                work.choose,
                std::min(at_once, count - i),
                rows + i,
                values.get(),
                work.to,
                work.stream));
    }
    stage("all");
}

void ListAssigner::finish() {
    Work& work = *work_;
    work.open = {};
    if (work.way == Way::nearest) {
        return;
    }
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(work.counted.get()));
    if (work.way == Way::two) {
        const RowNumbers unshared =
                work.numbers(unshared_at, work.prepared.n);
        const RowNumbers unordered =
                work.numbers(unordered_at, work.prepared.n);
        work.open.unshared = work.count(unshared_at);
        work.open.unordered = work.count(unordered_at);
        if (work.choose.components) {
            settle(unshared, work.open.unshared, false);
        } else if (work.open.unshared > 0) {
            compare_with_all(unshared.rows, work.open.unshared);
        }
        settle(unordered, work.open.unordered, true);
        if (work.open.unshared + work.open.unordered == 0) {
            return;
        }
        read_counts();
        FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(work.counted.get()));
    }
    work.open.left = work.count(left_at);
    if (work.open.left > 0) {
        compare_with_all(work.left.get(), work.open.left);
    }
}

} // namespace faiss_flash
