#pragma once

// What a training set keeps on the device for models of k centroids.

#include <algorithm>
#include <memory>
#include <vector>

#include <faiss_flash/cuda/assigner.cuh>
#include <faiss_flash/cuda/exact_sums.cuh>
#include <faiss_flash/cuda/memory_plan.h>
#include <faiss_flash/cuda/mixture/pass.cuh>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/// Accumulators of a pass on the device, in one piece, and their way back.
class DeviceAccumulators {
   public:
    DeviceAccumulators(int k, int d, cudaStream_t stream)
            : k_(k),
              d_(d),
              memory_(bytes(k, d), stream),
              fetched_(bytes(k, d)) {}

    static size_t bytes(int k, int d) {
        return (size_t)k * (d + 4) * sizeof(double);
    }

    void clear(cudaStream_t stream) {
        FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
                memory_.get(), 0, bytes(k_, d_), stream));
    }

    DeviceStatistics view() const {
        return view_of(memory_.get());
    }

    /// Starts the way back; take() once the stream has been waited for.
    void fetch(cudaStream_t stream) const {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                fetched_.get(),
                memory_.get(),
                bytes(k_, d_),
                cudaMemcpyDeviceToHost,
                stream));
    }

    /// Into `out`, which has the right shape.
    void take(Statistics& out) const {
        const DeviceStatistics from = view_of(fetched_.get());
        std::copy_n(from.sums, (size_t)k_ * d_, out.sums.begin());
        std::copy_n(from.counts, k_, out.counts.begin());
        std::copy_n(from.energy, k_, out.energy.begin());
        std::copy_n(from.members, k_, out.members.begin());
        for (int c = 0; c < k_; c++) {
            out.objective += from.products[c];
            out.total_weight += out.counts[c];
            out.n += out.members[c];
        }
        out.entries = out.n;
    }

   private:
    DeviceStatistics view_of(void* memory) const {
        static_assert(sizeof(int64_t) == sizeof(double));
        double* sums = static_cast<double*>(memory);
        double* scalars = sums + (size_t)k_ * d_;
        return {sums,
                scalars,
                scalars + k_,
                scalars + 2 * k_,
                reinterpret_cast<int64_t*>(scalars + 3 * k_)};
    }
    int k_, d_;
    DeviceArray<uint8_t> memory_;
    PooledBuffer fetched_;
};

/// Vectors of one chunk, with everything that assigning and updating need.
struct Chunk {
    Chunk(int64_t rows, int d, bool copied, bool weighted, cudaStream_t stream)
            : x(copied ? (size_t)rows * d : 0, stream),
              weights(weighted ? rows : 0, stream),
              prepared(rows, d, stream) {}
    static size_t bytes(int64_t rows, int d, bool copied, bool weighted) {
        return (copied ? (size_t)rows * d * sizeof(float) : 0) +
                (weighted ? rows * sizeof(float) : 0) +
                DeviceRows::bytes(rows, d);
    }
    DeviceArray<float> x, weights;
    DeviceVectors vectors; ///< x, or the caller's
    DeviceRows prepared;
};

/// How rows become statistics.
enum class Summation {
    exact, ///< the rows that moved, as integers: exact_sums.cuh
    sorted ///< all rows, weighted or not: update.cuh
};

/// Device memory for models of k centroids.
class Workspace {
   public:
    Workspace(
            const VectorSource& source,
            bool weighted,
            Summation summation,
            const Model& model,
            const HostShift& shift,
            size_t max_bytes,
            cudaStream_t stream)
            : n(source.n()),
              block_rows(update_block_rows(model.k)),
              copied(!source.on_device().data ||
                     ((summation == Summation::sorted ||
                       model.is_mixture()) &&
                      source.on_device().type != VectorType::float32)),
              k((int)model.k),
              d((int)model.d) {
        const DeviceInfo device = device_info();
        // a tenth is left to fragmentation and to other users of the device
        const size_t budget =
                max_bytes ? max_bytes : device.free_bytes / 10 * 9;
        const bool sorted = summation == Summation::sorted;
        auto bytes = [&](int64_t rows, int buffers) {
            return DeviceCentroids::bytes(k, d) +
                    DeviceAccumulators::bytes(k, d) +
                    buffers * Chunk::bytes(rows, d, copied, weighted) +
                    (sorted ? update_plan(rows).scratch_bytes()
                            : ExactSums::bytes(n, k, d)) +
                    (model.is_mixture()
                             ? MixturePass::least_bytes(
                                       n, rows, k, d, model.is_diagonal())
                             : 0);
        };
        plan = plan_memory(
                n, block_rows, budget, bytes(n, 1), [&](int64_t rows) {
                    return bytes(rows, 2);
                });
        if (model.is_mixture()) {
            plan.bytes -= least_mixture_bytes(model.is_diagonal());
        }
        for (int i = 0; i < (plan.resident ? 1 : 2); i++) {
            chunks.emplace_back(
                    new Chunk(plan.chunk_rows, d, copied, weighted, stream));
        }
        centroids = std::make_unique<DeviceCentroids>(k, d, shift, stream);
        accumulators = std::make_unique<DeviceAccumulators>(k, d, stream);
        unproved = DeviceArray<uint32_t>(plan.chunks, stream);
        fetched_unproved_ = std::make_unique<PooledBuffer>(unproved_bytes());
        if (sorted) {
            scratch = DeviceArray<uint8_t>(
                    update_plan(plan.chunk_rows).scratch_bytes(), stream);
        } else {
            exact = std::make_unique<ExactSums>(n, k, d, stream);
        }
    }

    UpdatePlan update_plan(int64_t rows) const {
        return {rows, block_rows, k, d};
    }

    /// What a hard pass has found, into `out` of the right shape; waits for
    /// the stream.
    void fetch(Statistics& out, cudaStream_t stream) const {
        accumulators->fetch(stream);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                fetched_unproved_->get(),
                unproved.get(),
                unproved_bytes(),
                cudaMemcpyDeviceToHost,
                stream));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream));
        accumulators->take(out);
        const auto* counts =
                static_cast<const uint32_t*>(fetched_unproved_->get());
        for (int64_t i = 0; i < plan.chunks; i++) {
            out.rechecked += counts[i];
        }
    }

    size_t least_mixture_bytes(bool diagonal) const {
        return MixturePass::least_bytes(n, plan.chunk_rows, k, d, diagonal);
    }
    size_t left_for_mixture(size_t max_bytes) const {
        return max_bytes ? max_bytes - std::min(max_bytes, plan.bytes)
                         : device_info().free_bytes / 10 * 9;
    }

    const int64_t n, block_rows;
    /// vectors are copied to chunks as floats: they come from the host, or
    /// are summed by update(), which reads floats, as soft passes do
    const bool copied;
    const int k, d;
    MemoryPlan plan; ///< without what soft passes take
    bool loaded = false; ///< resident rows are on the device
    std::vector<std::unique_ptr<Chunk>> chunks;
    std::unique_ptr<DeviceCentroids> centroids;
    std::unique_ptr<DeviceAccumulators> accumulators;
    std::unique_ptr<ExactSums> exact; ///< or else:
    DeviceArray<uint8_t> scratch;     ///< for update()
    DeviceArray<uint32_t> unproved;   ///< rows re-checked, per chunk
    std::unique_ptr<MixturePass> mixture; ///< once there was a soft pass

   private:
    size_t unproved_bytes() const {
        return plan.chunks * sizeof(uint32_t);
    }
    std::unique_ptr<PooledBuffer> fetched_unproved_;
};

} // namespace faiss_flash
