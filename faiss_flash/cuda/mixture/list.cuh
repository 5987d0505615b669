#pragma once

// What the listing kernels share: one pass of half-precision products over
// all components that keeps, of each row, the few that can matter.

#include <cstdint>

#include <faiss_flash/cuda/assign.cuh>

namespace faiss_flash {

/// A component of a row's list and the upper bound of its score.
struct alignas(8) Listed {
    uint32_t component;
    float score;
};

/// Components listed per row at most. The threads that share a row fill a
/// part of the list each, so that nobody has to ask for a place.
constexpr int list_capacity = 64;
constexpr int list_parts = 8; ///< most threads that share a row
/// Count of a part that was too short for what there was to list.
constexpr uint8_t list_overflow = 255;

/// What a row's scores are computed from and compared with.
struct alignas(16) RowLimit {
    float norm2;     ///< ‖x'‖²; 0 for products
    float threshold; ///< a component below is not worth listing
    /// a component whose score is this far above the threshold raises it:
    /// its true score is at least its v less the error, and the threshold
    /// lies the range of the pass (and errors) below; infinite: never
    float rise;
};

/// How components are cut into groups: a group is what one thread sees of
/// tiles_per_slot consecutive tiles, or of 2^−log_per_tile of one. Threads
/// have list_groups_per_row / (threads that share a row) groups at most.
constexpr int list_groups_per_row = 32;
struct ListGroups {
    int tiles_per_slot = 1;
    int log_per_tile = 0;

    /// As many groups as there are places for.
    static ListGroups of(int tiles, int parts) {
        const int slots = list_groups_per_row / parts;
        ListGroups groups;
        groups.tiles_per_slot = (tiles + slots - 1) / slots;
        while (tiles << (groups.log_per_tile + 1) <= slots) {
            groups.log_per_tile++;
        }
        return groups;
    }
    __device__ int first_slot(int tile) const {
        return tile / tiles_per_slot << log_per_tile;
    }
    /// Past the tile's first one, for part g of 2^log_parts parts.
    __device__ int slot_within(int g, int log_parts) const {
        return g >> (log_parts - log_per_tile);
    }
};

/// Largest score of each group, NaN where there is no such group;
/// (n, list_groups_per_row).
struct GroupOutput {
    float* best = nullptr;
};

/** One pass of listing.
 *
 * The score of component k for row x is
 *   v(x, k) = a_k + h_k·(2 x'·μ'_k − ‖x'‖²)
 * in nats (mixtures), or a distance or product that is larger for a nearer
 * centroid. a_k has the largest error of a typical row's score added: v is
 * an upper bound, and rows that are not typical have lower thresholds.
 * Listed is what reaches the row's threshold.
 */
struct ListInput {
    int64_t n = 0;    ///< rows
    int d_padded = 0; ///< of both, a multiple of 8
    int k = 0, k_padded = 0;
    const __half* rows = nullptr;      ///< (n, d_padded)
    const __half* means = nullptr;     ///< (k_padded, d_padded)
    const float2* columns = nullptr;   ///< a, h; (k_padded), −inf, 0 beyond k
    const RowLimit* limits = nullptr;  ///< (n)
    ListGroups groups;
};

struct ListOutput {
    Listed* listed = nullptr;  ///< (n, list_capacity)
    uint8_t* counts = nullptr; ///< (n, list_parts) entries of each part
};

/// A row's part of a list, as the thread that fills it carries it.
struct RowList {
    float norm2, threshold, rise;
    int count;

    __device__ void start(const ListInput& in, int64_t row) {
        // rows past the end list nothing
        const RowLimit limit = row < in.n
                ? in.limits[row]
                : RowLimit{0, INFINITY, INFINITY};
        norm2 = limit.norm2;
        threshold = limit.threshold;
        rise = limit.rise;
        count = 0;
    }

    __device__ float score(float product, float a, float h) const {
        return fmaf(h, fmaf(2, product, -norm2), a);
    }
    /// Written so that NaN counts.
    __device__ bool reached(float score) const {
        return !(score < threshold);
    }

    /// List the component if its score reached the threshold, `part` being
    /// the thread's part of the list. Most tiles have something to list in
    /// some thread of a warp, so this is a few predicated instructions and
    /// no branch.
    template <int capacity>
    __device__ __forceinline__ void offer(
            float score,
            int component,
            Listed* part) {
        // the component's true score is a lower bound of the maximum
        const float raised = score - rise;
        asm volatile(
                "{\n"
                ".reg .pred reached, fits;\n"
                ".reg .u64 to;\n"
                "setp.geu.f32 reached, %3, %1;\n" // also where one is NaN
                "setp.lt.and.s32 fits, %0, %6, reached;\n"
                "mad.wide.u32 to, %0, 8, %5;\n"
                "@fits st.global.v2.b32 [to], {%2, %7};\n"
                "@reached add.s32 %0, %0, 1;\n"
                "@reached max.f32 %1, %1, %4;\n"
                "}\n"
                : "+r"(count), "+f"(threshold)
                : "r"(component),
                  "f"(score),
                  "f"(raised),
                  "l"(part),
                  "n"(capacity),
                  "r"(__float_as_int(score))
                : "memory");
    }
    /// After each tile: a row with more than fits needs no more.
    __device__ void give_up_beyond(int capacity) {
        threshold = count > capacity ? INFINITY : threshold;
    }
    __device__ uint8_t final_count(int capacity) const {
        return count <= capacity ? count : list_overflow;
    }
};

} // namespace faiss_flash
