#pragma once

// Inside ListAssigner: which way a policy goes, and the device memory for it.

#include <memory>

#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/cuda/policies/list_assigner.cuh>
#include <faiss_flash/cuda/policies/share_shortlists.cuh>
#include <faiss_flash/cuda/policies/top_two.cuh>

namespace faiss_flash {

/// How the lists of a policy are found.
enum class ListWay {
    nearest,   ///< labels, as k-means has them
    two,       ///< two best scores where they are proved, then `shares`
    shares,    ///< all components that matter, listed from the best label
    shortlist, ///< the nearest from the bests of groups, then `groups`
    groups,    ///< the nearest, listed from thresholds by groups
    diagonal   ///< components of diagonal mixtures from shortlists
};

/// Rows listed at once.
constexpr int64_t list_rows = 1 << 18;
/// The same where only open rows are listed.
constexpr int64_t open_list_rows = 1 << 16;
/// Rows with shortlists at once: half a gigabyte of them.
constexpr int64_t shortlist_rows = 1 << 20;
/// Rows compared with all centroids at once need this many values at most.
constexpr int64_t most_values = 1 << 24;

/// Where the counters are.
enum ListCounter {
    unshared_at,
    unordered_at,
    left_at,
    unproved_at,
    unsettled_at,
    list_counters
};

/// Rows that a pass leaves open, prepared, one after the other.
struct GatheredRows {
    GatheredRows() = default;
    GatheredRows(int64_t rows, int d, cudaStream_t stream);

    /// @param numbers  (count) of rows of `from`
    PreparedRows gather(
            const PreparedRows& from,
            int64_t count,
            const uint32_t* numbers,
            cudaStream_t stream) const;

    DeviceArray<__half> halves;
    DeviceArray<float> norm, error;
};

/// Device memory, and the rows in work.
struct ListAssigner::Work {
    Work(const AssignmentPolicy& policy,
         const Model& model,
         int64_t most_rows,
         const DeviceInfo& device,
         cudaStream_t stream);
    ~Work();

    RowNumbers numbers(ListCounter at, int64_t most_rows) const;
    uint32_t count(ListCounter at) const;
    /// Counters on their way to the host; `counted` says when they are there.
    void read_counts();

    const ListWay way;
    const int k, d;
    const DeviceInfo device;
    const cudaStream_t stream;
    ChooseInput choose;
    DeviceMixture mixture;
    DeviceArray<uint32_t> counts; ///< (list_counters)
    PooledBuffer host_counts;
    Event counted;
    int64_t part = 0;                ///< rows listed at once
    std::unique_ptr<RowLists> lists; ///< of `part` rows
    DeviceArray<uint32_t> left, open_rows;
    DeviceArray<float> group_best, between;
    GatheredRows gathered;
    // two best
    DeviceArray<float2> columns;
    DeviceArray<CostScale> scale;
    // shortlists
    ShortlistGroups shortlist;
    int64_t shortlist_part = 0; ///< rows at once
    DeviceArray<uint32_t> keys, bounds, unsettled;
    DeviceArray<float> alpha;
    DeviceArray<ShortlistTerms> shortlist_terms;
    std::unique_ptr<ShareShortlists> shares; ///< of `part` rows

    DeviceRows* rows = nullptr;
    PreparedRows prepared;
    PreparedCentroids centroids;
    ListTerms terms;
    float unit = 1; ///< see ShortlistView
    idx_t* to = nullptr;
    Open open;
};

} // namespace faiss_flash
