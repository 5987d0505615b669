#pragma once

// Largest responsibilities of diagonal mixtures: shortlists of components by
// upper bounds of log densities (see DiagonalMixture), then the exact
// densities of all that can matter.

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/cuda/mixture/diagonal.cuh>
#include <faiss_flash/cuda/policies/choose_shortlist.cuh>

namespace faiss_flash {

/// What keys say of scores: q = ½ + scale·(top − v) between ½ and 1, so that
/// nothing whose key is above that of a score has a log density as large.
struct ShareScale {
    float scale, top;

    /// The largest key of scores from `score` on, or shortlist_none.
    __device__ uint32_t key_of(double score) const {
        const double past = scale * (top - score) * 0x1p24 + 2;
        return past < 0x1p23 ? ((uint32_t)fmax(past, 0.0) + 1)
                                << shortlist_column_bits
                             : shortlist_none;
    }
};

/// Shortlists of some rows.
struct ShareView {
    ShortlistOutput lists;
    ShortlistGroups groups;
    const ShareScale* scale = nullptr;
    const float* slack = nullptr; ///< −inf: halves do not hold the row
    float range = 0;              ///< see mixture_range()
    int d = 0, k = 0;
    const float* x = nullptr;     ///< (n, d)
    const float* means = nullptr; ///< (k, d)
    const ComponentTerms* components = nullptr;
    const float* half_precisions = nullptr; ///< (k, d)

    bool aligned() const {
        return d % 4 == 0 &&
                (reinterpret_cast<uintptr_t>(x) |
                 reinterpret_cast<uintptr_t>(means)) %
                        16 ==
                0;
    }
};

/// A diagonal mixture and the shortlists of up to `rows` rows. Needs compute
/// capability 9.0.
class ShareShortlists {
   public:
    ShareShortlists(int64_t rows, int k, int d, cudaStream_t stream);
    static size_t bytes(int64_t rows, int k, int d);
    /// Rows at once that take half a gigabyte.
    static int64_t usual_rows(int k, int d);

    /// The model but for its means.
    void set(const Model& model, cudaStream_t stream) {
        mixture_.set(model, stream);
    }
    /// @param means  (k, d), on the device
    void prepare(const float* means, const Shift& shift, cudaStream_t stream);

    /// Shortlists of x (n, d), on the device.
    ShareView fill(
            int64_t n,
            const float* x,
            int multiprocessors,
            cudaStream_t stream);

    const DiagonalMixture& mixture() const {
        return mixture_;
    }

   private:
    int k_, d_;
    const float* means_ = nullptr;
    Shift shift_ = {};
    DiagonalMixture mixture_;
    ShortlistGroups groups_;
    DeviceArray<uint32_t> keys_, bounds_;
    DeviceArray<float2> costs_;
    DeviceArray<ShareScale> scale_;
};

/// Where the largest responsibilities of rows go; not_answered (see top.cuh)
/// where shortlists do not do.
struct ShareAnswer {
    int m = 0;
    idx_t* labels = nullptr;       ///< (n, m), −1 where fewer matter
    float* values = nullptr;       ///< (n, m)
    double* log_density = nullptr; ///< (n)
};

/** Lists by responsibility.
 * @param in    rule, limit and log_tau
 * @param to    (n, in.limit)
 * @param open  rows, past `first`, whose shortlists do not do
 */
cudaError_t launch_choose_shares(
        const ChooseInput& in,
        const ShareView& from,
        int64_t n,
        int64_t first,
        idx_t* to,
        const RowCount& open,
        cudaStream_t stream);

cudaError_t launch_answer_shares(
        const ShareView& from,
        int64_t n,
        const ShareAnswer& to,
        cudaStream_t stream);

} // namespace faiss_flash
