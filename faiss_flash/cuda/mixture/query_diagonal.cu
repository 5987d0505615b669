#include <algorithm>

#include <faiss_flash/cuda/mixture/query.cuh>
#include <faiss_flash/cuda/policies/share_shortlists.cuh>

namespace faiss_flash {

/// Device memory for parts of `rows` rows.
struct ListQuery::DiagonalWork {
    DiagonalWork(int64_t rows, int k, int d, int m, cudaStream_t stream)
            : rows(rows),
              shares(rows, k, d, stream),
              labels(rows * m, stream),
              values(rows * m, stream),
              log_density(rows, stream) {}
    const int64_t rows;
    ShareShortlists shares;
    DeviceArray<idx_t> labels;
    DeviceArray<float> values;
    DeviceArray<double> log_density;
};

void ListQuery::add_diagonal(
        int64_t i0,
        int64_t n,
        const float* x,
        const DeviceCentroids& means,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const int k = model_.k, d = model_.d, m = answer_.m;
    if (!diagonal_) {
        diagonal_ = std::make_shared<DiagonalWork>(
                std::min(part_rows_, ShareShortlists::usual_rows(k, d)),
                k,
                d,
                m,
                stream);
        diagonal_->shares.set(model_, stream);
        diagonal_->shares.prepare(means.means(), means.shift(), stream);
    }
    DiagonalWork& work = *diagonal_;
    for (int64_t first = 0; first < n; first += work.rows) {
        const int64_t rows = std::min(work.rows, n - first);
        const ShareView view = work.shares.fill(
                rows, x + first * d, device.multiprocessors, stream);
        ShareAnswer to;
        to.m = m;
        to.labels = work.labels.get();
        to.values = work.values.get();
        to.log_density = work.log_density.get();
        FAISS_FLASH_CUDA_CHECK(launch_answer_shares(view, rows, to, stream));
        fetch(i0 + first,
              rows,
              to.labels,
              to.values,
              to.log_density,
              stream);
    }
}

} // namespace faiss_flash
