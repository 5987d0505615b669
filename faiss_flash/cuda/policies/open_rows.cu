// Rows that the first pass of ListAssigner leaves open.

#include <algorithm>

#include <faiss_flash/cuda/policies/assigner_work.cuh>

namespace faiss_flash {

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
    for (int64_t i = 0; i < count; i += work.part) {
        const PreparedRows rows = work.gathered.gather(
                work.prepared,
                std::min(work.part, count - i),
                open.rows + i,
                stream);
        RowLists& lists = *work.lists;
        FAISS_FLASH_CUDA_CHECK(launch_row_limits(
                rows,
                work.centroids,
                work.terms,
                open.columns + i,
                ordered ? 0 : mixture_range(work.k),
                lists.limits(),
                stream,
                !ordered));
        stage("gather");
        lists.fill(rows, work.centroids, work.terms, work.device, stream);
        stage("list");
        choose_listed(in, rows.n, 0, open.rows + i);
        stage("choose open");
    }
}

/// Rows that shortlists left open.
void ListAssigner::settle_nearest(const uint32_t* numbers, int64_t count) {
    Work& work = *work_;
    for (int64_t i = 0; i < count; i += work.part) {
        const PreparedRows rows = work.gathered.gather(
                work.prepared,
                std::min(work.part, count - i),
                numbers + i,
                work.stream);
        stage("gather");
        list_nearest(rows);
        choose_listed(work.choose, rows.n, 0, numbers + i);
        stage("choose open");
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

} // namespace faiss_flash
