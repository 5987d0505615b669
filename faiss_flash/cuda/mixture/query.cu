#include <algorithm>
#include <memory>
#include <vector>

#include <faiss_flash/cuda/mixture/query.cuh>
#include <faiss_flash/cuda/mixture/top.cuh>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

/// Device memory for parts of `rows` rows.
struct ListQuery::Work {
    Work(int64_t rows,
         int k,
         int slices,
         const Answer& answer,
         cudaStream_t stream)
            : mixture(k, stream),
              lists(rows, stream),
              places(rows + 1, stream),
              temp(row_places_temp_bytes(rows), stream),
              group_best(
                      answer.responsibilities ? 0
                                              : rows * list_groups_per_row,
                      stream),
              entries(
                      answer.responsibilities ? rows * list_capacity : 0,
                      stream),
              entry_rows(rows * list_capacity, stream),
              components(rows * list_capacity, stream),
              partial(
                      answer.responsibilities
                              ? rows * list_capacity * slices
                              : 0,
                      stream),
              cut(rows, stream),
              dropped(rows, stream),
              log_density(rows, stream),
              best(rows, stream),
              unproved(1, stream),
              totals(1, stream),
              labels(rows * answer.m, stream),
              values(rows * answer.m, stream) {}
    DeviceMixture mixture;
    RowLists lists;
    DeviceArray<uint64_t> places;
    DeviceArray<uint8_t> temp;
    DeviceArray<float> group_best;
    DeviceArray<WeightedRow> entries;
    DeviceArray<uint32_t> entry_rows, components;
    DeviceArray<float> partial, cut, dropped;
    DeviceArray<double> log_density;
    DeviceArray<uint32_t> best, unproved;
    DeviceArray<RowTotals> totals;
    DeviceArray<idx_t> labels;
    DeviceArray<float> values;
};

bool ListQuery::can(const Model& model, size_t m, bool responsibilities) {
    return m <= query_most &&
            (!responsibilities || !model.is_diagonal() ||
             device_info().capability == 90);
}

ListQuery::ListQuery(
        const Model& model,
        const Answer& answer,
        int64_t chunk_rows)
        : model_(model),
          answer_(answer),
          part_rows_(std::min<int64_t>(chunk_rows, 1 << 16)) {}

void ListQuery::add(
        int64_t i0,
        DeviceRows& rows,
        const float* x,
        const DeviceCentroids& means,
        const DeviceInfo& device,
        cudaStream_t stream) {
    if (answer_.responsibilities && model_.is_diagonal()) {
        add_diagonal(i0, rows.prepared().n, x, means, device, stream);
        return;
    }
    if (!work_) {
        work_ = std::make_shared<Work>(
                part_rows_,
                model_.k,
                distance_slices(model_.k, model_.d),
                answer_,
                stream);
        if (answer_.responsibilities) {
            work_->mixture.set(model_, stream);
        }
        // rows without a list are fetched with the others
        const auto clear = [&](auto& array, size_t count) {
            FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
                    array.get(), 0, count * sizeof(*array.get()), stream));
        };
        clear(work_->totals, 1);
        clear(work_->log_density, part_rows_);
        clear(work_->labels, part_rows_ * answer_.m);
        clear(work_->values, part_rows_ * answer_.m);
    }
    const PreparedRows all = rows.prepared();
    const PreparedCentroids prepared =
            means.prepared_for(all.typical, stream);
    ListTerms terms;
    if (answer_.responsibilities) {
        rows.assign_unchecked(
                prepared, work_->unproved.get(), device, stream);
        terms = work_->mixture.terms_for(
                all, prepared, means.shift().scale, stream);
    } else {
        terms = work_->mixture.terms_for_centroids(
                all, prepared, model_.metric == Metric::l2, stream);
    }
    for (int64_t first = 0; first < all.n; first += part_rows_) {
        add_part(
                i0 + first,
                all.slice(first, std::min(part_rows_, all.n - first)),
                prepared,
                terms,
                rows.labels() + first,
                x + first * model_.d,
                means.means(),
                device,
                stream);
    }
}

void ListQuery::add_part(
        int64_t i0,
        const PreparedRows& rows,
        const PreparedCentroids& prepared,
        const ListTerms& terms,
        const uint32_t* labels,
        const float* x,
        const float* means,
        const DeviceInfo& device,
        cudaStream_t stream) {
    Work& work = *work_;
    const int m = answer_.m;
    const bool l2 = model_.metric == Metric::l2;
    RowLists& lists = work.lists;
    float range = 0, most_drop = 0;
    if (answer_.responsibilities) {
        range = mixture_range(model_.k);
        most_drop = mixture_drop / 2;
        FAISS_FLASH_CUDA_CHECK(launch_row_limits(
                rows, prepared, terms, labels, range, lists.limits(), stream));
    } else {
        FAISS_FLASH_CUDA_CHECK(
                launch_row_norms(rows, l2, lists.limits(), stream));
        lists.fill_groups(
                rows, prepared, terms, work.group_best.get(), device, stream);
        FAISS_FLASH_CUDA_CHECK(launch_group_limits(
                rows, terms, m, work.group_best.get(), lists.limits(), stream));
    }
    lists.fill(rows, prepared, terms, device, stream);
    FAISS_FLASH_CUDA_CHECK(launch_filter_rows(
            rows.n,
            model_.k,
            lists.parts(),
            range,
            most_drop,
            lists.lists(),
            lists.limits(),
            work.places.get(),
            work.cut.get(),
            work.dropped.get(),
            stream));
    FAISS_FLASH_CUDA_CHECK(launch_row_places(
            rows.n,
            work.places.get(),
            work.temp.get(),
            row_places_temp_bytes(part_rows_),
            stream));
    EntryArrays arrays;
    arrays.entries = work.entries.get();
    arrays.rows = work.entry_rows.get();
    arrays.keys = work.components.get();
    arrays.partial = work.partial.get();
    FAISS_FLASH_CUDA_CHECK(launch_make_entries(
            0,
            rows.n,
            lists.parts(),
            lists.lists(),
            work.cut.get(),
            work.places.get(),
            arrays,
            stream));
    if (answer_.responsibilities) {
        MixtureRowsInput in;
        in.n = rows.n;
        in.block_rows = rows.n; // one block: keys are components
        in.d = model_.d;
        in.k = model_.k;
        in.x = x;
        in.means = means;
        in.components = work.mixture.components();
        in.range = range;
        in.most_drop = mixture_drop / 4;
        MixtureRowsOutput out;
        out.log_density = work.log_density.get();
        out.best = work.best.get();
        out.totals = work.totals.get();
        uint64_t entries = 0;
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                &entries,
                work.places.get() + rows.n,
                sizeof(entries),
                cudaMemcpyDeviceToHost,
                stream));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
        arrays.count = entries & RowPlace::entries_mask;
        FAISS_FLASH_CUDA_CHECK(launch_settle_rows(
                in,
                0,
                rows.n,
                work.dropped.get(),
                work.places.get(),
                arrays,
                device.multiprocessors,
                out,
                stream));
        FAISS_FLASH_CUDA_CHECK(launch_top_entries(
                rows.n,
                m,
                work.places.get(),
                work.entries.get(),
                work.components.get(),
                work.labels.get(),
                work.values.get(),
                stream));
    } else {
        FAISS_FLASH_CUDA_CHECK(launch_top_listed(
                rows.n,
                m,
                model_.d,
                l2,
                x,
                means,
                work.places.get(),
                work.components.get(),
                work.labels.get(),
                work.values.get(),
                stream));
    }
    fetch(i0,
          rows.n,
          work.labels.get(),
          work.values.get(),
          work.log_density.get(),
          stream);
}

void ListQuery::fetch(
        int64_t i0,
        int64_t n,
        const idx_t* labels,
        const float* values,
        const double* log_density,
        cudaStream_t stream) {
    const int64_t m = answer_.m;
    auto copy = [&](auto* to, const auto* from, int64_t count) {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                to,
                from,
                count * sizeof(*to),
                cudaMemcpyDeviceToHost,
                stream));
    };
    copy(answer_.labels + i0 * m, labels, n * m);
    copy(answer_.values + i0 * m, values, n * m);
    if (answer_.log_likelihood) {
        host_log_density_.resize(n);
        copy(host_log_density_.data(), log_density, n);
    }
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    if (answer_.log_likelihood) {
        std::copy_n(
                host_log_density_.data(), n, answer_.log_likelihood + i0);
    }
    std::vector<int64_t> left;
    for (int64_t i = i0; i < i0 + n; i++) {
        if (answer_.labels[i * m] == not_answered) {
            left.push_back(i);
        }
    }
    if (!left.empty()) {
        ask_cpu(left);
    }
}

void ListQuery::ask_cpu(const std::vector<int64_t>& rows) const {
    const size_t d = model_.d, m = answer_.m, n = rows.size();
    std::vector<float> x(n * d), values(n * m), log_likelihood(n);
    std::vector<idx_t> labels(n * m);
    for (size_t i = 0; i < n; i++) {
        std::copy_n(answer_.x + rows[i] * d, d, x.data() + i * d);
    }
    if (answer_.responsibilities) {
        cpu_engine().responsibilities(
                model_,
                n,
                x.data(),
                m,
                labels.data(),
                values.data(),
                log_likelihood.data());
    } else {
        cpu_engine().nearest(
                model_, n, x.data(), m, labels.data(), values.data());
    }
    for (size_t i = 0; i < n; i++) {
        std::copy_n(labels.data() + i * m, m, answer_.labels + rows[i] * m);
        std::copy_n(values.data() + i * m, m, answer_.values + rows[i] * m);
        if (answer_.log_likelihood) {
            answer_.log_likelihood[rows[i]] = log_likelihood[i];
        }
    }
}

} // namespace faiss_flash
