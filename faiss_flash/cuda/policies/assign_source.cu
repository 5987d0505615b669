// Assignment policies on the CUDA engine, from host or device memory.

#include <algorithm>
#include <memory>
#include <vector>

#include <faiss_flash/cuda/device_source.h>
#include <faiss_flash/cuda/pinned_pool.h>
#include <faiss_flash/cuda/policies/assign_source.h>
#include <faiss_flash/cuda/policies/list_assigner.cuh>
#include <faiss_flash/cuda/uploader.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

namespace {

/// Vectors copied at once: long enough for the device to be busy with, and
/// short enough that the first ones are soon there.
constexpr size_t copied_bytes = size_t(96) << 20;

/// From host to host, or from device to device.
class SourceAssigner {
   public:
    SourceAssigner(
            const AssignmentPolicy& policy,
            const Model& model,
            int64_t n,
            const VectorSource* source,
            const DeviceVectors& x,
            idx_t* lists,
            int64_t rows,
            cudaStream_t stream)
            : n_(n),
              d_(model.d),
              limit_(policy.list_limit()),
              rows_(rows),
              source_(source),
              x_(x),
              lists_(lists),
              device_(device_info()),
              stream_(stream),
              means_(model.k, d_, choose_shift(model), stream_.get()),
              assigner_(policy, model, rows, device_, stream_.get()) {
        means_.set(model, stream_.get());
        if (source) {
            uploader_ = std::make_unique<Uploader>(*source);
        }
        const bool floats = x.data && x.type == VectorType::float32;
        for (int i = 0; i < (rows < n && source ? 2 : 1); i++) {
            chunks_.emplace_back(std::make_unique<Chunk>(
                    rows,
                    d_,
                    floats ? 0 : rows * d_,
                    source ? rows * limit_ : 0,
                    stream_.get()));
            // the memory is there in the order of stream_
            FAISS_FLASH_CUDA_CHECK(cudaEventRecord(
                    chunks_.back()->free.get(), stream_.get()));
        }
    }

    ~SourceAssigner() {
        // copies may still be reading the page-locked blocks
        cudaStreamSynchronize(copy_stream_.get());
        cudaStreamSynchronize(stream_.get());
    }

    void run() {
        load(0);
        for (int64_t i0 = 0; i0 < n_; i0 += rows_) {
            Chunk& chunk = chunk_of(i0);
            const int64_t count = count_of(i0);
            idx_t* to = source_ ? chunk.lists.get() : lists_ + i0 * limit_;
            FAISS_FLASH_CUDA_CHECK(cudaStreamWaitEvent(
                    stream_.get(), chunk.there.get(), 0));
            chunk.prepared.prepare(
                    count, chunk.vectors, means_.shift(), stream_.get());
            assigner_.begin(chunk.prepared, chunk.floats, means_, to);
            const bool early = chunks_.size() > 1;
            if (early) {
                load(i0 + rows_);
            }
            assigner_.finish();
            FAISS_FLASH_CUDA_CHECK(
                    cudaEventRecord(chunk.free.get(), stream_.get()));
            if (!early) {
                load(i0 + rows_);
            }
            if (source_) {
                start_fetch(chunk, i0);
                if (early && i0 > 0) {
                    finish_fetch(i0 - rows_); // long there
                } else if (!early) {
                    finish_fetch(i0);
                }
            }
        }
        if (source_ && chunks_.size() > 1) {
            finish_fetch((n_ - 1) / rows_ * rows_);
        }
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
    }

    static size_t bytes(
            int64_t rows,
            int k,
            int d,
            int limit,
            const VectorSource* source,
            const DeviceVectors& x) {
        const bool floats = x.data && x.type == VectorType::float32;
        const size_t chunk = DeviceRows::bytes(rows, d) +
                (floats ? 0 : (size_t)rows * d * sizeof(float)) +
                (source ? rows * limit * sizeof(idx_t) : 0);
        return (source ? 2 : 1) * chunk + DeviceCentroids::bytes(k, d) +
                ListAssigner::bytes(rows, k, d);
    }

   private:
    struct Chunk {
        Chunk(int64_t rows,
              int d,
              size_t copied,
              size_t list_places,
              cudaStream_t stream)
                : x(copied, stream),
                  lists(list_places, stream),
                  fetched(list_places * sizeof(idx_t)),
                  prepared(rows, d, stream) {}
        DeviceArray<float> x;
        DeviceArray<idx_t> lists;
        PooledBuffer fetched;
        DeviceRows prepared;
        DeviceVectors vectors;
        const float* floats = nullptr;
        Event there, free; ///< vectors copied; no longer needed
        Event listed;      ///< lists copied
    };

    Chunk& chunk_of(int64_t i0) {
        return *chunks_[i0 / rows_ % chunks_.size()];
    }
    int64_t count_of(int64_t i0) const {
        return std::min(rows_, n_ - i0);
    }

    /// Vectors of the chunk that starts at i0, if there is one.
    void load(int64_t i0) {
        if (i0 >= n_) {
            return;
        }
        Chunk& chunk = chunk_of(i0);
        const int64_t count = count_of(i0);
        chunk.floats = chunk.x.get();
        if (source_) {
            FAISS_FLASH_CUDA_CHECK(cudaStreamWaitEvent(
                    copy_stream_.get(), chunk.free.get(), 0));
            uploader_->upload_vectors(
                    i0, count, chunk.x.get(), copy_stream_.get());
            FAISS_FLASH_CUDA_CHECK(
                    cudaEventRecord(chunk.there.get(), copy_stream_.get()));
            chunk.vectors = {chunk.x.get(), VectorType::float32};
            return;
        }
        chunk.vectors = x_.plus(i0 * d_);
        if (x_.type == VectorType::float32) {
            chunk.floats = static_cast<const float*>(chunk.vectors.data);
        } else {
            FAISS_FLASH_CUDA_CHECK(launch_to_floats(
                    count * d_, chunk.vectors, chunk.x.get(), stream_.get()));
        }
    }

    /// Lists on their way to the host.
    void start_fetch(Chunk& chunk, int64_t i0) {
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                chunk.fetched.get(),
                chunk.lists.get(),
                count_of(i0) * limit_ * sizeof(idx_t),
                cudaMemcpyDeviceToHost,
                stream_.get()));
        FAISS_FLASH_CUDA_CHECK(
                cudaEventRecord(chunk.listed.get(), stream_.get()));
    }

    /// Where the caller wants them; waits for them.
    void finish_fetch(int64_t i0) {
        Chunk& chunk = chunk_of(i0);
        FAISS_FLASH_CUDA_CHECK(cudaEventSynchronize(chunk.listed.get()));
        const int64_t places = count_of(i0) * limit_;
        const idx_t* from = static_cast<const idx_t*>(chunk.fetched.get());
        idx_t* to = lists_ + i0 * limit_;
        const int64_t piece = 1 << 15;
#pragma omp parallel for schedule(static) if (places > 4 * piece)
        for (int64_t at = 0; at < places; at += piece) {
            std::copy_n(from + at, std::min(piece, places - at), to + at);
        }
    }

    const int64_t n_;
    const int d_, limit_;
    const int64_t rows_; ///< of a chunk
    const VectorSource* source_;
    const DeviceVectors x_;
    idx_t* lists_;
    const DeviceInfo device_;
    Stream stream_;
    Stream copy_stream_;
    DeviceCentroids means_;
    ListAssigner assigner_;
    std::unique_ptr<Uploader> uploader_;
    std::vector<std::unique_ptr<Chunk>> chunks_;
};

/// Rows at once within half of the memory that is free.
int64_t rows_at_once(
        const AssignmentPolicy& policy,
        const Model& model,
        int64_t n,
        const VectorSource* source,
        const DeviceVectors& x) {
    const size_t budget = device_info().free_bytes / 2;
    int64_t rows = n;
    if (source) {
        const int64_t copied = copied_bytes / (model.d * sizeof(float));
        // whole blocks of the score kernels on most devices
        rows = std::min(n, std::max<int64_t>(copied >> 14, 1) << 14);
    }
    while (rows > 1024 &&
           SourceAssigner::bytes(
                   rows,
                   model.k,
                   model.d,
                   policy.list_limit(),
                   source,
                   x) > budget) {
        rows = (rows + 1) / 2;
    }
    return rows;
}

} // namespace

void assign_source(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const VectorSource* source,
        const DeviceVectors& x,
        idx_t* lists,
        void* stream) {
    // others may take memory that looked free
    for (int64_t rows = rows_at_once(policy, model, n, source, x);;
         rows = (rows + 1) / 2) {
        try {
            SourceAssigner(
                    policy,
                    model,
                    n,
                    source,
                    x,
                    lists,
                    rows,
                    static_cast<cudaStream_t>(stream))
                    .run();
            return;
        } catch (const OutOfDeviceMemory&) {
            if (rows <= 1024) {
                throw;
            }
        }
    }
}

void assign_on_device(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const DeviceVectors& x,
        idx_t* lists,
        void* stream) {
    const Engine* engine = cuda_engine();
    FAISS_THROW_IF_NOT_MSG(
            engine, "assign_lists_device: there is no CUDA device to run on");
    check_device_pointer("assign_lists_device", "x", x.data);
    check_device_pointer("assign_lists_device", "lists", lists);
    if (ListAssigner::can(policy, model)) {
        assign_source(policy, model, n, nullptr, x, lists, stream);
        return;
    }
    // by the host, a part at a time
    const auto s = static_cast<cudaStream_t>(stream);
    const size_t d = model.d, limit = policy.list_limit();
    const size_t rows = std::min<size_t>(n, 1 << 16);
    const DeviceArray<float> floats(rows * d, s);
    std::vector<float> part(rows * d);
    std::vector<idx_t> found(rows * limit);
    for (size_t i0 = 0; i0 < n; i0 += rows) {
        const size_t count = std::min(rows, n - i0);
        FAISS_FLASH_CUDA_CHECK(launch_to_floats(
                count * d,
                x.plus(i0 * d),
                floats.get(),
                s));
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                part.data(),
                floats.get(),
                count * d * sizeof(float),
                cudaMemcpyDeviceToHost,
                s));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(s));
        engine->assign(policy, model, count, part.data(), found.data());
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                lists + i0 * limit,
                found.data(),
                count * limit * sizeof(idx_t),
                cudaMemcpyHostToDevice,
                s));
        FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(s));
    }
}

} // namespace faiss_flash
