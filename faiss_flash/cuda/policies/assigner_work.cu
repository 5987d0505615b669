#include <algorithm>
#include <cmath>

#include <faiss_flash/cuda/policies/assigner_work.cuh>
#include <faiss_flash/cuda/policies/gather_rows.cuh>

namespace faiss_flash {

namespace {

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

ShortlistGroups groups_of(int k) {
    return ShortlistGroups::of((k + assign_columns - 1) / assign_columns);
}

ListWay way_of(
        const AssignmentPolicy& policy,
        const Model& model,
        int capability) {
    const int limit = policy.list_limit(), k = model.k;
    if (k == 1 || (limit == 1 && !by_shares(policy))) {
        return ListWay::nearest;
    }
    if (by_shares(policy) && model.is_diagonal()) {
        return ListWay::diagonal;
    }
    const bool two = limit <= 2 &&
            (by_shares(policy) || policy.rule == AssignmentRule::top_m);
    if (two && capability == 90) {
        return ListWay::two;
    }
    if (by_shares(policy)) {
        return ListWay::shares;
    }
    // with fewer groups too many rows have too many candidates in one
    const bool enough = groups_of(k).count() >= candidates_of(policy, k);
    return capability == 90 && k <= shortlist_most_k && enough
            ? ListWay::shortlist
            : ListWay::groups;
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

/// A table of distances between centroids pays for its k² where there are
/// as many rows, up to so many centroids (64 MiB).
constexpr int most_between = 4096;

bool needs_between(const AssignmentPolicy& policy, int64_t rows, int k) {
    return policy.compares_residuals() && candidates_of(policy, k) > 1 &&
            rows >= k && k <= most_between;
}

int padded(int d) {
    return (d + 7) / 8 * 8;
}

} // namespace

GatheredRows::GatheredRows(int64_t rows, int d, cudaStream_t stream)
        : halves(rows * padded(d), stream),
          norm(rows, stream),
          error(rows, stream) {}

PreparedRows GatheredRows::gather(
        const PreparedRows& from,
        int64_t count,
        const uint32_t* numbers,
        cudaStream_t stream) const {
    FAISS_FLASH_CUDA_CHECK(launch_gather_rows(
            from,
            count,
            numbers,
            halves.get(),
            norm.get(),
            error.get(),
            stream));
    PreparedRows rows = from;
    rows.n = count;
    rows.halves = halves.get();
    rows.norm = norm.get();
    rows.error = error.get();
    return rows;
}

ListAssigner::Work::Work(
        const AssignmentPolicy& policy,
        const Model& model,
        int64_t most_rows,
        const DeviceInfo& device,
        cudaStream_t stream)
        : way(way_of(policy, model, device.capability)),
          k(model.k),
          d(model.d),
          device(device),
          stream(stream),
          choose(choose_input(policy, model)),
          mixture(k, stream),
          counts(list_counters, stream),
          host_counts(list_counters * sizeof(uint32_t)) {
    if (way == ListWay::nearest) {
        return;
    }
    left = DeviceArray<uint32_t>(most_rows, stream);
    if (way == ListWay::diagonal) {
        part = std::min(most_rows, ShareShortlists::usual_rows(k, d));
        shares = std::make_unique<ShareShortlists>(part, k, d, stream);
        shares->set(model, stream);
        choose.components = shares->mixture().components();
        choose.half_precisions = shares->mixture().half_precisions();
        return;
    }
    part = std::min(
            most_rows, way == ListWay::shortlist ? open_list_rows : list_rows);
    lists = std::make_unique<RowLists>(part, stream);
    if (way == ListWay::groups || way == ListWay::shortlist) {
        group_best = DeviceArray<float>(part * list_groups_per_row, stream);
    }
    if (way == ListWay::two || way == ListWay::shortlist) {
        open_rows = DeviceArray<uint32_t>(4 * most_rows, stream);
        gathered = GatheredRows(part, d, stream);
    }
    if (way == ListWay::two) {
        columns = DeviceArray<float2>(k + assign_columns, stream);
        scale = DeviceArray<CostScale>(1, stream);
    }
    if (way == ListWay::shortlist) {
        shortlist = groups_of(k);
        // no block of the kernel is without rows at the end
        const int64_t wave = device.multiprocessors * 256;
        shortlist_part = std::min(
                most_rows, std::max(shortlist_rows / wave, int64_t(1)) * wave);
        keys = DeviceArray<uint32_t>(
                shortlist_part * shortlist.count() * shortlist_kept, stream);
        bounds = DeviceArray<uint32_t>(shortlist_part, stream);
        unsettled = DeviceArray<uint32_t>(shortlist_part, stream);
        alpha = DeviceArray<float>(k + assign_columns, stream);
        shortlist_terms = DeviceArray<ShortlistTerms>(1, stream);
    }
    if (needs_between(policy, most_rows, k)) {
        between = DeviceArray<float>((size_t)k * k, stream);
    }
    if (by_shares(policy)) {
        mixture.set(model, stream);
        choose.components = mixture.components();
    }
}

ListAssigner::Work::~Work() {
    cudaEventSynchronize(counted.get()); // host_counts are written
}

RowNumbers ListAssigner::Work::numbers(ListCounter at, int64_t most_rows)
        const {
    uint32_t* rows = open_rows.get() + (at == unshared_at ? 0 : 2) * most_rows;
    return {rows, rows + most_rows, counts.get() + at};
}

uint32_t ListAssigner::Work::count(ListCounter at) const {
    return static_cast<const uint32_t*>(host_counts.get())[at];
}

void ListAssigner::Work::read_counts() {
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            host_counts.get(),
            counts.get(),
            list_counters * sizeof(uint32_t),
            cudaMemcpyDeviceToHost,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(counted.get(), stream));
}

bool ListAssigner::can(const AssignmentPolicy& policy, const Model& model) {
    return candidates_of(policy, model.k) <= choose_most &&
            policy.list_limit() <= choose_most &&
            (!by_shares(policy) || !model.is_diagonal() ||
             device_info().capability == 90);
}

size_t ListAssigner::bytes(int64_t rows, int k, int d) {
    const int64_t part = std::min(rows, list_rows);
    return 5 * rows * sizeof(uint32_t) + RowLists::bytes(part) +
            part * (list_groups_per_row * sizeof(float) +
                    padded(d) * sizeof(__half) + 2 * sizeof(float)) +
            ShareShortlists::bytes(
                    std::min(rows, ShareShortlists::usual_rows(k, d)), k, d) +
            std::min(rows, shortlist_rows) *
            (shortlist_groups * shortlist_kept + 2) * sizeof(uint32_t) +
            (k + assign_columns) *
                    (2 * sizeof(float2) + 2 * sizeof(float) +
                     sizeof(ComponentTerms)) +
            std::min<int64_t>(most_values, rows * k) * sizeof(double) +
            (k <= most_between && rows >= k ? (size_t)k * k * sizeof(float)
                                            : 0);
}

} // namespace faiss_flash
