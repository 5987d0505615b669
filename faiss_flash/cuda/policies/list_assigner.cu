#include <algorithm>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/policies/assigner_work.cuh>
#include <faiss_flash/cuda/policies/choose_shortlist.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

namespace {

/// Scores within this many nats of a row's best one are told apart.
constexpr float share_spread = 64;

} // namespace

ListAssigner::ListAssigner(
        const AssignmentPolicy& policy,
        const Model& model,
        int64_t rows,
        const DeviceInfo& device,
        cudaStream_t stream)
        : work_(std::make_unique<Work>(policy, model, rows, device, stream)) {}

ListAssigner::~ListAssigner() = default;

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
    work.unit = 1 / (means.shift().scale * means.shift().scale);
    if (work.way == ListWay::nearest) {
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
            work.counts.get(), 0, list_counters * sizeof(uint32_t), stream));
    if (work.way == ListWay::diagonal) {
        choose_shares(means);
        work.read_counts();
        return;
    }
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
        case ListWay::two:
            find_two();
            break;
        case ListWay::shares:
            list_shares();
            break;
        case ListWay::shortlist:
            choose_shortlisted();
            break;
        default:
            list_candidates();
    }
    work.read_counts();
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

/// Largest responsibilities of a diagonal mixture.
void ListAssigner::choose_shares(const DeviceCentroids& means) {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
    work.shares->prepare(means.means(), means.shift(), stream);
    const int64_t n = work.prepared.n;
    for (int64_t first = 0; first < n; first += work.part) {
        const int64_t rows = std::min(work.part, n - first);
        const ShareView view = work.shares->fill(
                rows,
                work.choose.x + first * work.d,
                work.device.multiprocessors,
                stream);
        stage("shortlist");
        FAISS_FLASH_CUDA_CHECK(launch_choose_shares(
                work.choose,
                view,
                rows,
                first,
                work.to + first * work.choose.limit,
                {work.left.get(), work.counts.get() + left_at},
                stream));
        stage("choose");
    }
}

/// Shortlists to lists, of all rows; rows that they do not do for are open.
void ListAssigner::choose_shortlisted() {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
    const PreparedRows& all = work.prepared;
    FAISS_FLASH_CUDA_CHECK(launch_shortlist_columns(
            all,
            work.centroids,
            work.alpha.get(),
            work.shortlist_terms.get(),
            stream));
    const RowNumbers open = work.numbers(unordered_at, all.n);
    // few of all rows at once
    const RowCount unsettled = {
            work.unsettled.get(), work.counts.get() + unsettled_at};
    for (int64_t first = 0; first < all.n; first += work.shortlist_part) {
        ShortlistInput in;
        in.rows = all.slice(
                first, std::min(work.shortlist_part, all.n - first));
        in.k_padded = work.centroids.k_padded;
        in.means = work.centroids.halves;
        in.alpha = work.alpha.get();
        in.terms = work.shortlist_terms.get();
        in.groups = work.shortlist;
        const ShortlistOutput lists = {work.keys.get(), work.bounds.get()};
        launch_shortlist(in, lists, work.device.multiprocessors, stream);
        stage("shortlist");
        ShortlistView view;
        view.lists = lists;
        view.groups = in.groups;
        view.terms = in.terms;
        view.norm = in.rows.norm;
        view.error = in.rows.error;
        view.unit = work.unit;
        FAISS_FLASH_CUDA_CHECK(launch_choose_shortlist(
                work.choose,
                view,
                in.rows.n,
                first,
                work.to,
                unsettled,
                {open.rows, open.count},
                work.device.multiprocessors,
                stream));
        stage("choose");
    }
}

/// Candidates of these rows, listed from thresholds by groups.
void ListAssigner::list_nearest(const PreparedRows& rows) {
    Work& work = *work_;
    const cudaStream_t stream = work.stream;
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
}

void ListAssigner::list_candidates() {
    Work& work = *work_;
    const PreparedRows& all = work.prepared;
    for (int64_t first = 0; first < all.n; first += work.part) {
        const PreparedRows rows =
                all.slice(first, std::min(work.part, all.n - first));
        list_nearest(rows);
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
    for (int64_t first = 0; first < all.n; first += work.part) {
        const PreparedRows rows =
                all.slice(first, std::min(work.part, all.n - first));
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

void ListAssigner::finish() {
    Work& work = *work_;
    work.open = {};
    if (work.way == ListWay::nearest) {
        return;
    }
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(work.counted.get()));
    if (work.way == ListWay::two || work.way == ListWay::shortlist) {
        const RowNumbers unshared =
                work.numbers(unshared_at, work.prepared.n);
        const RowNumbers unordered =
                work.numbers(unordered_at, work.prepared.n);
        work.open.unshared = work.count(unshared_at);
        work.open.unordered = work.count(unordered_at);
        if (work.way == ListWay::shortlist) {
            settle_nearest(unordered.rows, work.open.unordered);
        } else {
            if (work.choose.components) {
                settle(unshared, work.open.unshared, false);
            } else if (work.open.unshared > 0) {
                compare_with_all(unshared.rows, work.open.unshared);
            }
            settle(unordered, work.open.unordered, true);
        }
        if (work.open.unshared + work.open.unordered == 0) {
            return;
        }
        work.read_counts();
        FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(work.counted.get()));
    }
    work.open.left = work.count(left_at);
    if (work.open.left > 0) {
        compare_with_all(work.left.get(), work.open.left);
    }
}

} // namespace faiss_flash
