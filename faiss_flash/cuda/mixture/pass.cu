#include <algorithm>

#include <faiss_flash/cuda/mixture/pass.cuh>

namespace faiss_flash {

MixturePass::MixturePass(
        int64_t n,
        int64_t chunk_rows,
        int k,
        int d,
        bool diagonal,
        size_t budget,
        cudaStream_t stream)
        : n_(n),
          plan_(plan_mixture(
                  chunk_rows,
                  k,
                  d,
                  budget - std::min(budget, fixed_bytes(n, k, d, diagonal)),
                  diagonal)),
          mixture_(k, stream),
          best_(n, stream),
          order_(n, stream),
          unproved_(1, stream),
          limits_(plan_.rows, stream),
          masks_(plan_.rows * plan_.mask_words(), stream),
          near_(plan_.rows, stream),
          order_scratch_(
                  order_scratch_bytes({plan_.rows, plan_.block_rows}, k),
                  stream),
          log_density_(plan_.rows, stream),
          row_partial_(2 * row_totals_blocks(plan_.rows), stream),
          item_bits_(plan_.mask_words() * plan_.tiles(), stream),
          item_first_(plan_.mask_words() * plan_.tiles(), stream),
          items_(plan_.items(), stream),
          vectors_(plan_.vectors() * plan_.vector_stride(), stream),
          used_(2, stream),
          wide_marks_(plan_.rows, stream),
          wide_rows_(plan_.rows, stream),
          wide_counts_(plan_.blocks(), stream),
          wide_shares_(plan_.blocks() * plan_.wide_rows * k, stream),
          dense_rows_(plan_, stream),
          accumulators_(2 * values(), stream),
          members_(k, stream),
          totals_(1, stream),
          host_statistics_(
                  (2 * values() + k) * sizeof(double) + sizeof(RowTotals)) {
    if (diagonal) {
        diagonal_ = std::make_unique<DiagonalMixture>(
                plan_.rows, k, d, stream);
    }
}

namespace {

/// Sums, counts and energies.
size_t statistics_values(size_t k, size_t d, bool diagonal) {
    return k * (d + 1 + (diagonal ? d : 1));
}

} // namespace

size_t MixturePass::values() const {
    return statistics_values(plan_.k, plan_.d, plan_.diagonal);
}

size_t MixturePass::fixed_bytes(int64_t n, int k, int d, bool diagonal) {
    return 2 * n * sizeof(uint32_t) +
            2 * statistics_values(k, d, diagonal) * sizeof(double);
}

size_t MixturePass::least_bytes(
        int64_t n,
        int64_t chunk_rows,
        int k,
        int d,
        bool diagonal) {
    return least_mixture_bytes(chunk_rows, k, d, diagonal) +
            fixed_bytes(n, k, d, diagonal);
}

DeviceStatistics MixturePass::accumulators(bool dense) const {
    const size_t sums = (size_t)plan_.k * plan_.d;
    double* base = accumulators_.get() + (dense ? values() : 0);
    return {base, base + sums, base + sums + plan_.k, nullptr, nullptr};
}

void MixturePass::begin(const Model& model, cudaStream_t stream) {
    wide_count_ = 0;
    dense_ = false;
    passes_ = seeded_ ? passes_ + 1 : 0;
    if (diagonal_) {
        diagonal_->set(model, stream);
        // rows are prepared again, so not in every pass
        rescale_ = (passes_ & (passes_ - 1)) == 0;
    } else {
        mixture_.set(model, stream);
    }
    const size_t k = plan_.k;
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            accumulators_.get(), 0, 2 * values() * sizeof(double), stream));
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
    PreparedCentroids prepared;
    if (!seeded_ || !diagonal_) {
        prepared = means.prepared_for(all.typical, stream);
    }
    if (!seeded_) {
        rows.assign_unchecked(prepared, unproved_.get(), device, stream);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                best_.get() + i0,
                rows.labels(),
                all.n * sizeof(uint32_t),
                cudaMemcpyDeviceToDevice,
                stream));
    }
    ListTerms terms;
    if (diagonal_) {
        // the same for all chunks of a pass
        diagonal_->prepare(
                means.means(), means.shift(), rescale_ && i0 == 0, stream);
        rows_prepared_ = rows_prepared_ && !rescale_;
        terms = diagonal_->terms();
    } else {
        terms = mixture_.terms_for(
                all, prepared, means.shift().scale, stream);
    }
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
        if (diagonal_) {
            in.components = diagonal_->components();
            in.half_precisions = diagonal_->half_precisions();
        }
        in.range = mixture_range(plan_.k);
        in.most_drop = mixture_drop / 4;
        in.most_unlisted = mixture_drop * 3 / 4;
        const PreparedRows part = all.slice(first, in.n);
        list_rows(
                in,
                part,
                prepared,
                terms,
                means.shift(),
                i0 + first,
                device,
                stream);
        add_rows(
                in,
                part.norm,
                means.shift(),
                i0 + first,
                device,
                stream);
    }
    if (i0 + all.n == n_) {
        seeded_ = true;
    }
}

/// Which components can matter to each row, and the order of rows.
void MixturePass::list_rows(
        const MixtureRowsInput& in,
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const Shift& shift,
        int64_t first,
        const DeviceInfo& device,
        cudaStream_t stream) {
    uint32_t* best = best_.get() + first;
    uint32_t* order = order_.get() + first;
    // any order is right; few best components change after the first passes
    if (passes_ < 4 || passes_ % 4 == 0) {
        FAISS_FLASH_CUDA_CHECK(launch_order_rows(
                {in.n, in.block_rows},
                in.k,
                best,
                order,
                order_scratch_.get(),
                stream));
        stage("order");
    }
    const MaskOutput masks = {
            masks_.get(), near_.get(), plan_.mask_words()};
    if (diagonal_) {
        MixtureRowsInput listed = in;
        listed.range = mask_range(in.range);
        if (!rows_prepared_) {
            diagonal_->prepare_rows(in.n, in.x, shift, stream);
            rows_prepared_ = in.n == n_;
            stage("rows");
        }
        diagonal_->limits(listed, best, order, limits_.get(), stream);
        stage("limits");
        fill_masks(
                diagonal_->rows(),
                diagonal_->means(),
                terms,
                limits_.get(),
                masks,
                device,
                stream);
    } else {
        FAISS_FLASH_CUDA_CHECK(launch_row_limits(
                rows,
                means,
                terms,
                best,
                mask_range(in.range),
                limits_.get(),
                stream));
        stage("limits");
        fill_masks(rows, means, terms, limits_.get(), masks, device, stream);
    }
    stage("list");
}

/// What becomes of rows whose components are listed.
void MixturePass::add_rows(
        const MixtureRowsInput& in,
        const float* norm,
        const Shift& shift,
        int64_t first,
        const DeviceInfo& device,
        cudaStream_t stream) {
    uint32_t* best = best_.get() + first;
    const uint32_t* order = order_.get() + first;
    const MaskOutput masks = {
            masks_.get(), near_.get(), plan_.mask_words()};
    TileInput tiles;
    tiles.rows = in;
    tiles.masks = MaskView::of(masks, in.k);
    tiles.limits = limits_.get();
    tiles.order = order;
    MixtureRowsOutput out;
    out.log_density = log_density_.get();
    out.best = best;
    out.members = members_.get();
    out.totals = totals_.get();
    FAISS_FLASH_CUDA_CHECK(launch_tiles(tiles, out, items(), wide(), stream));
    stage("tiles");
    FAISS_FLASH_CUDA_CHECK(launch_list_wide(in, wide(), stream));
    const int64_t blocks = (in.n + in.block_rows - 1) / in.block_rows;
    dense_rows_.count(wide(), blocks, stream);
    FAISS_FLASH_CUDA_CHECK(launch_wide_rows(tiles, out, wide(), stream));
    stage("wide");
    FAISS_FLASH_CUDA_CHECK(launch_combine_tiles(
            in, items(), wide(), accumulators(false), stream));
    stage("combine");
    const DensePass::Added added = dense_rows_.add(
            in,
            norm,
            shift,
            diagonal_ ? diagonal_->scales() : nullptr,
            wide(),
            out,
            accumulators(true),
            device,
            stream);
    wide_count_ += added.wide_rows;
    dense_ |= added.dense;
    stage("dense");
    FAISS_FLASH_CUDA_CHECK(launch_row_totals(
            in, out.log_density, row_partial_.get(), totals_.get(), stream));
    stage("totals");
}

TileItems MixturePass::items() const {
    TileItems items;
    items.bits = item_bits_.get();
    items.first = item_first_.get();
    items.items = items_.get();
    items.vectors = vectors_.get();
    items.most_vectors = plan_.vectors();
    items.stride = plan_.vector_stride();
    items.used = used_.get();
    return items;
}

WideRows MixturePass::wide() const {
    WideRows wide;
    wide.most = plan_.wide_rows;
    wide.marks = wide_marks_.get();
    wide.rows = wide_rows_.get();
    wide.counts = wide_counts_.get();
    wide.shares = wide_shares_.get();
    return wide;
}

void MixturePass::fetch(Statistics& out, cudaStream_t stream) {
    const size_t k = plan_.k, sums = k * plan_.d, all = values();
    const bool dense = dense_;
    double* const found = static_cast<double*>(host_statistics_.get());
    auto* members = reinterpret_cast<unsigned long long*>(found + 2 * all);
    auto* totals = reinterpret_cast<RowTotals*>(members + k);
    auto copy = [&](auto* to, const auto* from, size_t count) {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                to,
                from,
                count * sizeof(*to),
                cudaMemcpyDeviceToHost,
                stream));
    };
    copy(found, accumulators_.get(), dense ? 2 * all : all);
    copy(members, members_.get(), k);
    copy(totals, totals_.get(), 1);
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
    for (size_t i = 0; dense && i < all; i++) {
        found[i] += found[all + i];
    }
    std::copy_n(found, sums, out.sums.begin());
    std::copy_n(found + sums, k, out.counts.begin());
    std::copy_n(found + sums + k, all - sums - k, out.energy.begin());
    std::copy_n(members, k, out.members.begin());
    out.n = n_;
    out.log_likelihood = totals->log_likelihood;
    out.total_weight = totals->weight;
    out.entries = totals->entries;
    out.dropped_mass = totals->dropped;
}

} // namespace faiss_flash
