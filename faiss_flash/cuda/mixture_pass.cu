#include <algorithm>

#include <faiss_flash/cuda/mixture_pass.cuh>

namespace faiss_flash {

MixturePass::MixturePass(
        int64_t n,
        int64_t chunk_rows,
        int k,
        int d,
        size_t budget,
        cudaStream_t stream)
        : n_(n),
          plan_(plan_mixture(
                  chunk_rows,
                  k,
                  d,
                  budget - std::min(budget, fixed_bytes(n, k, d)))),
          mixture_(k, stream),
          lists_(plan_.rows, stream),
          best_(n, stream),
          unproved_(1, stream),
          places_(plan_.rows + 1, stream),
          sampled_(4 * (plan_.rows / plan_.block_rows + 1) + 1, stream),
          temp_(row_places_temp_bytes(plan_.rows), stream),
          log_density_(plan_.rows, stream),
          row_partial_(2 * (plan_.rows / plan_.block_rows + 1), stream),
          entries_(plan_.entries, stream),
          entry_rows_(plan_.entries, stream),
          keys_(plan_.entries, stream),
          cut_(plan_.rows, stream),
          dropped_(plan_.rows, stream),
          scratch_(plan_.scratch_bytes(), stream),
          dense_rows_(plan_.rows, stream),
          hard_rows_(plan_.rows / plan_.block_rows + 1, stream),
          dense_dist_(plan_.dense_rows() * plan_.k_padded(), stream),
          dense_shares_(plan_.dense_rows() * k, stream),
          split_rows_(plan_.dense_rows() * 3 * plan_.d_padded(), stream),
          split_means_(plan_.k_padded() * 3 * plan_.d_padded(), stream),
          split_norm2_(plan_.dense_rows(), stream),
          split_log_density_(plan_.dense_rows(), stream),
          split_columns_(plan_.k_padded(), stream),
          pieces_(plan_.pieces, stream),
          piece_sums_((size_t)plan_.pieces * k * d, stream),
          piece_scalars_((size_t)plan_.pieces * 2 * k, stream),
          accumulators_(2 * ((size_t)k * d + 2 * k), stream),
          members_(k, stream),
          totals_(1, stream),
          host_places_(
                  (4 * (plan_.rows / plan_.block_rows + 1) + 1) *
                  sizeof(uint64_t)),
          host_hard_rows_(
                  (plan_.rows / plan_.block_rows + 1) * sizeof(uint32_t)),
          host_statistics_(
                  (2 * ((size_t)k * d + 2 * k) + k) * sizeof(double) +
                  sizeof(RowTotals)) {}

size_t MixturePass::fixed_bytes(int64_t n, int k, int d) {
    return n * sizeof(uint32_t) +
            2 * ((size_t)k * d + 2 * k) * sizeof(double);
}

size_t MixturePass::least_bytes(int64_t n, int64_t chunk_rows, int k, int d) {
    return least_mixture_bytes(chunk_rows, k, d) + fixed_bytes(n, k, d);
}

DeviceStatistics MixturePass::accumulators(bool dense) const {
    const size_t sums = (size_t)plan_.k * plan_.d;
    double* base = accumulators_.get() + (dense ? sums + 2 * plan_.k : 0);
    return {base, base + sums, base + sums + plan_.k, nullptr, nullptr};
}

void MixturePass::begin(const Model& model, cudaStream_t stream) {
    mixture_.set(model, stream);
    dense_count_ = 0;
    const size_t k = plan_.k;
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            accumulators_.get(),
            0,
            2 * (k * plan_.d + 2 * k) * sizeof(double),
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            members_.get(), 0, k * sizeof(unsigned long long), stream));
    FAISS_FLASH_CUDA_CHECK(
            cudaMemsetAsync(totals_.get(), 0, sizeof(RowTotals), stream));
}

void MixturePass::add(
        int64_t i0,
        DeviceRows& rows,
        const float* x,
        const float* weights,
        const DeviceCentroids& means,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const PreparedRows all = rows.prepared();
    const PreparedCentroids prepared =
            means.prepared_for(all.typical, stream);
    if (!seeded_) {
        rows.assign_unchecked(prepared, unproved_.get(), device, stream);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                best_.get() + i0,
                rows.labels(),
                all.n * sizeof(uint32_t),
                cudaMemcpyDeviceToDevice,
                stream));
    }
    const ListTerms terms =
            mixture_.terms_for(all, prepared, means.shift().scale, stream);
    stage("terms");
    for (int64_t first = 0; first < all.n; first += plan_.rows) {
        MixtureRowsInput in;
        in.n = std::min(plan_.rows, all.n - first);
        in.block_rows = plan_.block_rows;
        in.d = plan_.d;
        in.k = plan_.k;
        in.x = x + first * plan_.d;
        in.weights = weights ? weights + first : nullptr;
        in.means = means.means();
        in.components = mixture_.components();
        in.range = mixture_range(plan_.k);
        in.most_drop = mixture_drop / 4;
        add_rows(
                in,
                all.slice(first, in.n),
                prepared,
                terms,
                means.shift(),
                best_.get() + i0 + first,
                device,
                stream);
    }
    if (i0 + all.n == n_) {
        seeded_ = true;
    }
}

void MixturePass::add_rows(
        const MixtureRowsInput& in,
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const Shift& shift,
        uint32_t* best,
        const DeviceInfo& device,
        cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(launch_row_limits(
            rows, means, terms, best, in.range, lists_.limits(), stream));
    stage("limits");
    lists_.fill(rows, means, terms, device, stream);
    stage("list");
    FAISS_FLASH_CUDA_CHECK(launch_filter_rows(
            in.n,
            in.k,
            lists_.parts(),
            in.range,
            mixture_drop / 2,
            lists_.lists(),
            lists_.limits(),
            places_.get(),
            cut_.get(),
            dropped_.get(),
            stream));
    stage("filter");
    FAISS_FLASH_CUDA_CHECK(launch_row_places(
            in.n,
            places_.get(),
            temp_.get(),
            row_places_temp_bytes(plan_.rows),
            stream));
    const int64_t quarter = in.block_rows / 4;
    const int64_t samples = (in.n + quarter - 1) / quarter + 1;
    FAISS_FLASH_CUDA_CHECK(launch_sample_places(
            in.n, quarter, samples, places_.get(), sampled_.get(), stream));
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            host_places_.get(),
            sampled_.get(),
            samples * sizeof(uint64_t),
            cudaMemcpyDeviceToHost,
            stream));
    FAISS_FLASH_CUDA_CHECK(launch_hard_rows(
            in,
            places_.get(),
            rows.norm,
            terms.bounds,
            hard_rows_.get(),
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            host_hard_rows_.get(),
            hard_rows_.get(),
            (in.n + in.block_rows - 1) / in.block_rows * sizeof(uint32_t),
            cudaMemcpyDeviceToHost,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    stage("places");

    MixtureRowsOutput out;
    out.log_density = log_density_.get();
    out.best = best;
    out.members = members_.get();
    out.totals = totals_.get();
    add_sparse(in, out, device, stream);
    add_dense(in, products(shift), out, stream);
    stage("dense");
    FAISS_FLASH_CUDA_CHECK(launch_row_totals(
            in, out.log_density, row_partial_.get(), totals_.get(), stream));
    stage("totals");
}

void MixturePass::add_sparse(
        const MixtureRowsInput& in,
        const MixtureRowsOutput& out,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const uint64_t* places = static_cast<const uint64_t*>(host_places_.get());
    const int64_t quarter = in.block_rows / 4;
    const int64_t quarters = (in.n + quarter - 1) / quarter;
    auto entries_of = [&](int64_t q0, int64_t q1) {
        q1 = std::min(q1, quarters);
        return int64_t(
                (places[q1] & RowPlace::entries_mask) -
                (places[q0] & RowPlace::entries_mask));
    };
    for (int64_t q = 0; q < quarters;) {
        int64_t end = q + 4; // one block at least
        if (q % 4 != 0 || entries_of(q, end) > plan_.block_entries()) {
            end = q + 1;
        } else {
            while (end < quarters &&
                   entries_of(end, end + 4) <= plan_.block_entries() &&
                   entries_of(q, end + 4) <= plan_.entries) {
                end += 4;
            }
        }
        end = std::min(end, quarters);
        const int64_t first = q * quarter;
        const int64_t count = std::min(end * quarter, in.n) - first;
        EntryArrays arrays;
        arrays.count = entries_of(q, end);
        arrays.entries = entries_.get();
        arrays.rows = entry_rows_.get();
        arrays.keys = keys_.get();
        arrays.partial = reinterpret_cast<float*>(scratch_.get());
        FAISS_FLASH_CUDA_CHECK(launch_make_entries(
                first,
                count,
                lists_.parts(),
                lists_.lists(),
                cut_.get(),
                places_.get(),
                arrays,
                stream));
        stage("entries");
        FAISS_FLASH_CUDA_CHECK(launch_settle_rows(
                in,
                first,
                count,
                dropped_.get(),
                places_.get(),
                arrays,
                device.multiprocessors,
                out,
                stream));
        stage("settle");
        const SegmentPlan sums = {
                arrays.count,
                (count + in.block_rows - 1) / in.block_rows,
                in.k,
                in.d};
        FAISS_FLASH_CUDA_CHECK(update_entries(
                sums,
                in.x,
                keys_.get(),
                entries_.get(),
                device.multiprocessors,
                accumulators(false),
                scratch_.get(),
                stream));
        stage("sums");
        q = end;
    }
}

void MixturePass::fetch(Statistics& out, cudaStream_t stream) {
    const size_t k = plan_.k, sums = k * plan_.d, all = sums + 2 * k;
    const bool dense = dense_count_ > 0;
    double* values = static_cast<double*>(host_statistics_.get());
    auto* members = reinterpret_cast<unsigned long long*>(values + 2 * all);
    auto* totals = reinterpret_cast<RowTotals*>(members + k);
    auto copy = [&](auto* to, const auto* from, size_t count) {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                to,
                from,
                count * sizeof(*to),
                cudaMemcpyDeviceToHost,
                stream));
    };
    copy(values, accumulators_.get(), dense ? 2 * all : all);
    copy(members, members_.get(), k);
    copy(totals, totals_.get(), 1);
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    for (size_t i = 0; dense && i < all; i++) {
        values[i] += values[all + i];
    }
    std::copy_n(values, sums, out.sums.begin());
    std::copy_n(values + sums, k, out.counts.begin());
    std::copy_n(values + sums + k, k, out.energy.begin());
    std::copy_n(members, k, out.members.begin());
    out.n = n_;
    out.log_likelihood = totals->log_likelihood;
    out.total_weight = totals->weight;
    out.entries = totals->entries;
    out.dropped_mass = totals->dropped;
}

} // namespace faiss_flash
