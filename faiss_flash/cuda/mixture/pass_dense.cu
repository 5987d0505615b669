// The dense rows of a soft pass.

#include <algorithm>

#include <faiss_flash/cuda/mixture/pass.cuh>

namespace faiss_flash {

DenseProducts MixturePass::products(const Shift& shift) const {
    DenseProducts products;
    products.d_padded = plan_.d_padded();
    products.k_padded = plan_.k_padded();
    products.shift = shift;
    products.rows = split_rows_.get();
    products.norm2 = split_norm2_.get();
    products.log_density = split_log_density_.get();
    products.means = split_means_.get();
    products.columns = split_columns_.get();
    products.scores = dense_dist_.get();
    return products;
}

void MixturePass::add_dense(
        const MixtureRowsInput& in,
        const DenseProducts& products,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(counted_.get()));
    const uint2* counts = static_cast<const uint2*>(host_counts_.get());
    const int64_t blocks = (in.n + in.block_rows - 1) / in.block_rows;
    bool prepared = false;
    std::vector<DensePiece> batch;
    const DenseProducts* batch_products = nullptr;
    auto finish_batch = [&] {
        if (!batch.empty()) {
            add_dense_batch(in, batch_products, batch, out, stream);
            batch.clear();
        }
    };
    int64_t i = 0;
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t rows = counts[b].x;
        wide_count_ += rows;
        if (rows <= plan_.wide_rows) {
            continue;
        }
        dense_ = true;
        const int64_t end = i + rows;
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                dense_rows_.get() + i,
                wide_rows_.get() + b * in.block_rows,
                rows * sizeof(uint32_t),
                cudaMemcpyDeviceToDevice,
                stream));
        // by what the block holds alone, so that chunks do not matter
        const bool by_products = !in.weights && !in.half_precisions &&
                in.k <= dense_products_max_k && counts[b].y == 0 &&
                rows >= dense_products_min_rows;
        if (by_products && !prepared) {
            FAISS_FLASH_CUDA_CHECK(launch_split_means(in, products, stream));
            prepared = true;
        }
        for (; i < end; i += plan_.piece_rows) {
            const DenseProducts* wanted = by_products ? &products : nullptr;
            if (wanted != batch_products || (int)batch.size() == plan_.pieces) {
                finish_batch();
                batch_products = wanted;
            }
            batch.push_back(
                    {uint32_t(i),
                     uint32_t(std::min(plan_.piece_rows, end - i))});
        }
        i = end;
    }
    finish_batch();
}

/// Changes `pieces`: places within the batch instead of among all dense rows.
void MixturePass::add_dense_batch(
        const MixtureRowsInput& in,
        const DenseProducts* products,
        std::vector<DensePiece>& pieces,
        const MixtureRowsOutput& out,
        cudaStream_t stream) {
    const uint32_t first = pieces.front().first;
    for (DensePiece& piece : pieces) {
        piece.first -= first;
    }
    const int64_t rows = pieces.back().first + pieces.back().count;
    const uint32_t* numbers = dense_rows_.get() + first;
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            pieces_.get(),
            pieces.data(),
            pieces.size() * sizeof(DensePiece),
            cudaMemcpyHostToDevice,
            stream));
    const DenseScratch scratch = {
            dense_dist_.get(),
            dense_shares_.get(),
            pieces_.get(),
            piece_sums_.get(),
            piece_scalars_.get()};
    if (products) {
        FAISS_FLASH_CUDA_CHECK(launch_dense_scores(
                in, rows, numbers, *products, out, stream));
        FAISS_FLASH_CUDA_CHECK(launch_dense_product_sums(
                in,
                pieces.size(),
                *products,
                scratch,
                out,
                accumulators(true),
                stream));
    } else {
        FAISS_FLASH_CUDA_CHECK(
                launch_dense_shares(in, rows, numbers, out, scratch, stream));
        FAISS_FLASH_CUDA_CHECK(launch_dense_sums(
                in,
                pieces.size(),
                numbers,
                scratch,
                accumulators(true),
                stream));
    }
}

} // namespace faiss_flash
