#pragma once

#include <functional>
#include <memory>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/cuda/assigner.cuh>
#include <faiss_flash/cuda/policies/choose_lists.cuh>
#include <faiss_flash/cuda/policies/top_two.cuh>

namespace faiss_flash {

/** An assignment policy applied to rows on the device; README.md says how.
 *
 * One object serves one set of rows after the other, on one stream.
 */
class ListAssigner {
   public:
    /// Whether the policy looks at few enough candidates, and for
    /// responsibilities of diagonal mixtures, whether the device is Hopper.
    static bool can(const AssignmentPolicy& policy, const Model& model);

    /// @param model  under L2; uploaded here
    /// @param rows   at most so many at once
    ListAssigner(
            const AssignmentPolicy& policy,
            const Model& model,
            int64_t rows,
            const DeviceInfo& device,
            cudaStream_t stream);
    ~ListAssigner();
    /// Device memory for so many rows.
    static size_t bytes(int64_t rows, int k, int d);

    /** Lists of prepared rows, with the same means every time. Work is queued
     * by begin(), which returns at once; finish() waits for it, queues the
     * rest, and waits where it has to know what there is left to do.
     *
     * @param x   the same rows as floats, (n, d)
     * @param to  (n, policy.list_limit())
     */
    void begin(
            DeviceRows& rows,
            const float* x,
            const DeviceCentroids& means,
            idx_t* to);
    void finish();

    /// Of the last rows: what was left open by the first pass, and by lists.
    struct Open {
        uint32_t unshared = 0, unordered = 0, left = 0;
    };
    const Open& open() const;

    /// Called as stages of the work are queued, for timing.
    std::function<void(const char*)> on_stage;

   private:
    struct Work;
    void find_two();
    void choose_shares(const DeviceCentroids& means);
    void choose_shortlisted();
    void list_nearest(const PreparedRows& rows);
    void list_candidates();
    void list_shares();
    void choose_listed(
            const ChooseInput& in,
            int64_t n,
            int64_t first,
            const uint32_t* numbers);
    void settle(const RowNumbers& open, int64_t count, bool ordered);
    void settle_nearest(const uint32_t* numbers, int64_t count);
    void compare_with_all(const uint32_t* rows, int64_t count);
    void stage(const char* name) const {
        if (on_stage) {
            on_stage(name);
        }
    }
    std::unique_ptr<Work> work_;
};

} // namespace faiss_flash
