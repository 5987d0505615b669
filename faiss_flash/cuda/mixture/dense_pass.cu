// The dense rows of a soft pass.

#include <algorithm>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/mixture/dense_pass.cuh>

namespace faiss_flash {

namespace {

/// Of rows that go through difference form: more of them at once.
constexpr int64_t plain_piece_rows = 1024;

/// Pieces of one call: blocks end within pieces, and rows of a block may go
/// two ways.
size_t all_pieces(const MixturePlan& plan) {
    return plan.rows / std::min<int64_t>(plan.piece_rows, plain_piece_rows) +
            2 * plan.blocks();
}

/// Of an operand, see DenseProducts.
int64_t width(const MixturePlan& plan) {
    return plan.diagonal ? 2 * plan.d_padded() : (plan.d + 15) / 16 * 16;
}

size_t host_bytes(const MixturePlan& plan) {
    return 2 * plan.blocks() * sizeof(uint2) + sizeof(DenseChoice) +
            all_pieces(plan) * sizeof(DensePiece);
}

} // namespace

/// A quarter of a batch's matrix of scores, or that of one piece.
size_t DensePass::share_values(const MixturePlan& plan) {
    return std::max(1, plan.pieces / 4) * plan.piece_rows * plan.k;
}

DensePass::DensePass(const MixturePlan& plan, cudaStream_t stream)
        : plan_(plan),
          rows_(plan.rows, stream),
          split_(plan.blocks(), stream),
          scores_(plan.dense_rows() * plan.k_padded(), stream),
          shares_(share_values(plan), stream),
          row_halves_(plan.dense_rows() * 3 * width(plan), stream),
          mean_halves_(plan.k_padded() * 3 * width(plan), stream),
          norm_(plan.diagonal ? plan.rows : 0, stream),
          norm2_(plan.dense_rows(), stream),
          log_density_(plan.dense_rows(), stream),
          found_(plan.dense_rows(), stream),
          columns_(plan.k_padded(), stream),
          reach_(plan.k, stream),
          choice_(1, stream),
          excluded_(plan.k, stream),
          pieces_(all_pieces(plan), stream),
          sums_(plan.piece_sums(), stream),
          scalars_((size_t)plan.pieces * 2 * plan.k, stream),
          host_(host_bytes(plan)) {}

size_t DensePass::bytes(const MixturePlan& plan) {
    const size_t row_bytes = (plan.k_padded() + 2) * sizeof(float) +
            sizeof(DenseFound) + 3 * width(plan) * sizeof(__half);
    return plan.dense_rows() * row_bytes + plan.rows * sizeof(uint32_t) +
            share_values(plan) * sizeof(float) +
            plan.k_padded() *
            (3 * width(plan) * sizeof(__half) + sizeof(float2)) +
            (plan.diagonal ? plan.rows * sizeof(float) : 0) +
            plan.k * (sizeof(double2) + sizeof(uint32_t)) +
            (plan.piece_sums() + (size_t)plan.pieces * 2 * plan.k) *
            sizeof(double) +
            all_pieces(plan) * sizeof(DensePiece) + sizeof(DenseChoice) +
            plan.blocks() * sizeof(uint2);
}

DenseProducts DensePass::products(const Shift& shift) const {
    DenseProducts products;
    products.width = width(plan_);
    products.k_padded = plan_.k_padded();
    products.piece_rows = plan_.piece_rows;
    products.shift = shift;
    products.numbers = rows_.get();
    products.rows = row_halves_.get();
    products.norm2 = norm2_.get();
    products.found = found_.get();
    products.log_density = log_density_.get();
    products.means = mean_halves_.get();
    products.columns = columns_.get();
    products.scores = scores_.get();
    products.reach = reach_.get();
    products.choice = choice_.get();
    products.excluded = excluded_.get();
    return products;
}

DenseScratch DensePass::scratch(const Batch& batch) const {
    return {scores_.get(),
            shares_.get(),
            pieces_.get() + batch.first,
            sums_.get(),
            scalars_.get()};
}

void DensePass::count(
        const WideRows& wide,
        int64_t blocks,
        cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            host_.get(),
            wide.counts,
            blocks * sizeof(uint2),
            cudaMemcpyDeviceToHost,
            stream));
    FAISS_FLASH_CUDA_CHECK(cudaEventRecord(counted_.get(), stream));
}

int64_t DensePass::piece_rows(bool by_products) const {
    return by_products ? plan_.piece_rows
                       : std::min<int64_t>(plan_.piece_rows, plain_piece_rows);
}

int DensePass::most_pieces(bool by_products, int excluded, int k) const {
    // distances and shares of excluded components, or shares of all
    const size_t per_row = by_products ? 2 * excluded : k;
    const size_t piece = per_row * piece_rows(by_products);
    return std::clamp<size_t>(
            share_values(plan_) / std::max<size_t>(piece, 1),
            1,
            plan_.pieces);
}

DensePass::Added DensePass::add(
        const MixtureRowsInput& in,
        const float* norm,
        const Shift& shift,
        const float* scales,
        const WideRows& wide,
        const MixtureRowsOutput& out,
        const DeviceStatistics& statistics,
        const DeviceInfo& device,
        cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(counted_.get()));
    const int64_t blocks = (in.n + in.block_rows - 1) / in.block_rows;
    uint2* const counts = static_cast<uint2*>(host_.get());
    uint2* const split = counts + plan_.blocks();
    auto* const choice =
            reinterpret_cast<DenseChoice*>(split + plan_.blocks());
    auto* const staged = reinterpret_cast<DensePiece*>(choice + 1);
    Added added;
    for (int64_t b = 0; b < blocks; b++) {
        added.wide_rows += counts[b].x;
        added.dense |= (int)counts[b].x > plan_.wide_rows;
    }
    if (!added.dense) {
        return added;
    }
    DenseProducts products = this->products(shift);
    const bool sm90 = choose_assign_kernel(
                              device.capability, products.width) !=
            AssignKernel::sm80;
    products.scales = scales;
    products.third = !sm90 || products.width > dense_scores_sm90_max_width;
    products.sm90 = sm90;
    bool by_products = !in.weights && in.k <= dense_products_max_k &&
            (sm90 || !in.half_precisions);
    if (by_products) {
        if (in.half_precisions) {
            FAISS_FLASH_CUDA_CHECK(
                    launch_diagonal_norms(in, products, norm_.get(), stream));
            norm = norm_.get();
        }
        FAISS_FLASH_CUDA_CHECK(launch_split_means(in, products, stream));
        FAISS_FLASH_CUDA_CHECK(
                launch_choose_components(in, products, stream));
        FAISS_FLASH_CUDA_CHECK(launch_split_dense(
                in,
                norm,
                products.choice,
                plan_.wide_rows,
                wide.counts,
                wide.rows,
                rows_.get(),
                split_.get(),
                stream));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                split,
                split_.get(),
                blocks * sizeof(uint2),
                cudaMemcpyDeviceToHost,
                stream));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                choice,
                choice_.get(),
                sizeof(DenseChoice),
                cudaMemcpyDeviceToHost,
                stream));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
        // with more of them the scratch of one piece would not do
        by_products = 2 * (int)choice->excluded <= in.k;
    }
    const uint32_t* const numbers = by_products ? rows_.get() : wide.rows;

    // by what blocks hold alone, so that chunks do not matter
    const int excluded = by_products ? choice->excluded : 0;
    std::vector<DensePiece> pieces;
    std::vector<Batch> batches;
    auto cut = [&](int64_t first, int64_t end, bool with_products) {
        const int most = most_pieces(with_products, excluded, in.k);
        const int64_t rows = piece_rows(with_products);
        for (int64_t i = first; i < end; i += rows) {
            if (batches.empty() || batches.back().count == most ||
                batches.back().by_products != with_products) {
                batches.push_back({(int)pieces.size(), 0, with_products});
            }
            batches.back().count++;
            pieces.push_back(
                    {uint32_t(i), uint32_t(std::min(rows, end - i))});
        }
    };
    for (int64_t b = 0; b < blocks; b++) {
        if ((int)counts[b].x <= plan_.wide_rows) {
            continue;
        }
        const int64_t first = b * in.block_rows;
        const int64_t easy = by_products &&
                        split[b].x >= dense_products_min_rows
                ? split[b].x
                : 0;
        cut(first, first + easy, true);
        cut(first + easy, first + counts[b].x, false);
    }
    std::copy(pieces.begin(), pieces.end(), staged);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            pieces_.get(),
            staged,
            pieces.size() * sizeof(DensePiece),
            cudaMemcpyHostToDevice,
            stream));
    for (const Batch& batch : batches) {
        if (batch.by_products) {
            add_by_products(
                    in,
                    products,
                    batch,
                    excluded,
                    out,
                    statistics,
                    device,
                    stream);
        } else {
            add_plain(
                    in, numbers, batch, pieces, out, statistics, stream);
        }
    }
    return added;
}

void DensePass::add_by_products(
        const MixtureRowsInput& in,
        DenseProducts products,
        const Batch& batch,
        int excluded,
        const MixtureRowsOutput& out,
        const DeviceStatistics& statistics,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const DenseScratch all = scratch(batch);
    const int64_t rows = batch.count * plan_.piece_rows;
    DenseScratch of_excluded = all;
    of_excluded.dist = shares_.get() + excluded * rows;
    FAISS_FLASH_CUDA_CHECK(
            launch_split_rows(in, rows, all.pieces, products, stream));
    FAISS_FLASH_CUDA_CHECK(
            products.sm90
                    ? launch_dense_scores_sm90(
                              rows, products, device.multiprocessors, stream)
                    : launch_dense_scores_sm80(rows, products, stream));
    FAISS_FLASH_CUDA_CHECK(launch_settle_dense(
            in,
            rows,
            excluded,
            all.pieces,
            products,
            of_excluded.dist,
            of_excluded.shares,
            out,
            stream));
    FAISS_FLASH_CUDA_CHECK(
            (products.sm90 ? launch_dense_sums_sm90 : launch_dense_sums_sm80)(
                    in, batch.count, products, all, out, stream));
    if (excluded > 0) {
        FAISS_FLASH_CUDA_CHECK(launch_dense_excluded_sums(
                in, batch.count, excluded, products, of_excluded, stream));
    }
    FAISS_FLASH_CUDA_CHECK(launch_combine_products(
            in, batch.count, products, all, statistics, stream));
}

void DensePass::add_plain(
        const MixtureRowsInput& in,
        const uint32_t* numbers,
        const Batch& batch,
        const std::vector<DensePiece>& pieces,
        const MixtureRowsOutput& out,
        const DeviceStatistics& statistics,
        cudaStream_t stream) {
    // pieces of several blocks have places apart: one of these at a time
    const DenseScratch all = scratch(batch);
    for (int i = 0; i < batch.count;) {
        const uint32_t first = pieces[batch.first + i].first;
        uint32_t end = first;
        int count = 0;
        while (i + count < batch.count &&
               pieces[batch.first + i + count].first == end) {
            end += pieces[batch.first + i + count].count;
            count++;
        }
        DenseScratch part = all;
        part.pieces += i;
        FAISS_FLASH_CUDA_CHECK(launch_dense_shares(
                in, end - first, numbers + first, out, part, stream));
        FAISS_FLASH_CUDA_CHECK(launch_dense_sums(
                in, count, first, numbers, part, statistics, stream));
        i += count;
    }
}

} // namespace faiss_flash
