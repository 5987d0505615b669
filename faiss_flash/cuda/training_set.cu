#include <faiss_flash/cuda/training_set.cuh>

#include <algorithm>
#include <vector>

namespace faiss_flash {

CudaTrainingSet::CudaTrainingSet(
        const VectorSource& source,
        const EngineOptions& options)
        : source_(source),
          options_(options),
          device_(device_info()),
          stream_(static_cast<cudaStream_t>(options.stream)),
          uploader_(source) {
    std::vector<float> buffer;
    weighted_ = source.n() > 0 && source.weights(0, 1, buffer) != nullptr;
    summation_ = weighted_ ? Summation::sorted : Summation::exact;
}

CudaTrainingSet::~CudaTrainingSet() {
    finish();
}

void CudaTrainingSet::accumulate(
        const Model& model,
        Pass pass,
        Statistics& out) {
    const bool soft = pass == Pass::soft;
    const size_t energies = soft ? model.variances_per_component() : 1;
    if (source_.n() == 0) {
        out.reset(model.k, model.d, energies);
        return;
    }
    try {
        out.resize(model.k, model.d, energies);
        if (soft) {
            accumulate_soft(model, out);
        } else {
            accumulate_hard(model, out);
        }
    } catch (...) {
        // nothing goes on from half a pass
        finish();
        work_.reset();
        throw;
    }
}

void CudaTrainingSet::answer(
        const Model& model,
        const ListQuery::Answer& answer) {
    begin(model);
    ListQuery query(model, answer, work_->plan.chunk_rows);
    for_each_chunk([&](Chunk& chunk, int64_t i0, int64_t) {
        query.add(
                i0,
                chunk.prepared,
                static_cast<const float*>(chunk.vectors.data),
                *work_->centroids,
                device_,
                stream_.get());
    });
}

void CudaTrainingSet::labels(const Model& model, uint32_t* labels) {
    begin(model);
    for_each_chunk([&](Chunk& chunk, int64_t i0, int64_t rows) {
        assign(chunk, i0);
        FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
                labels + i0,
                chunk.prepared.labels(),
                rows * sizeof(uint32_t),
                cudaMemcpyDeviceToHost,
                stream_.get()));
    });
    FAISS_FLASH_CUDA_CHECK(cudaStreamSynchronize(stream_.get()));
}

void CudaTrainingSet::finish() {
    cudaStreamSynchronize(copy_stream_.get());
    cudaStreamSynchronize(stream_.get());
}

void CudaTrainingSet::accumulate_hard(const Model& model, Statistics& out) {
    begin(model);
    const cudaStream_t stream = stream_.get();
    if (work_->mixture) {
        work_->mixture->forget();
    }
    work_->accumulators->clear(stream);
    const bool l2 = model.metric == Metric::l2;
    const bool first = work_->exact && !work_->exact->started();
    for_each_chunk([&](Chunk& chunk, int64_t i0, int64_t rows) {
        assign(chunk, i0);
        add(chunk, i0, rows, l2);
    });
    if (work_->exact) {
        work_->exact->finish(
                work_->centroids->means(),
                l2,
                work_->accumulators->view(),
                stream);
    }
    work_->fetch(out, stream);
    if (first && work_->exact->too_many_off_grid(stream)) {
        summation_ = Summation::sorted;
        work_.reset();
        out.resize(model.k, model.d);
        accumulate_hard(model, out);
    }
}

void CudaTrainingSet::accumulate_soft(const Model& model, Statistics& out) {
    begin(model);
    begin_mixture(model);
    const cudaStream_t stream = stream_.get();
    work_->mixture->begin(model, stream);
    for_each_chunk([&](Chunk& chunk, int64_t i0, int64_t) {
        work_->mixture->add(
                i0,
                chunk.prepared,
                static_cast<const float*>(chunk.vectors.data),
                weighted_ ? chunk.weights.get() : nullptr,
                *work_->centroids,
                device_,
                stream);
    });
    work_->mixture->fetch(out, stream);
}

void CudaTrainingSet::begin_mixture(const Model& model) {
    const bool diagonal = model.is_diagonal();
    if (work_->mixture && work_->mixture->diagonal() == diagonal) {
        return;
    }
    work_->mixture.reset();
    const bool floats =
            work_->copied || source_.on_device().type == VectorType::float32;
    size_t budget = work_->left_for_mixture(options_.max_device_bytes);
    if (!floats || budget < work_->least_mixture_bytes(diagonal)) {
        work_.reset();
        begin(model); // leaves room, the model being a mixture
        budget = work_->left_for_mixture(options_.max_device_bytes);
    }
    for (;; budget /= 2) {
        try {
            work_->mixture = std::make_unique<MixturePass>(
                    source_.n(),
                    work_->plan.chunk_rows,
                    work_->k,
                    work_->d,
                    diagonal,
                    budget,
                    stream_.get());
            return;
        } catch (const OutOfDeviceMemory&) {
            if (budget < work_->least_mixture_bytes(diagonal)) {
                throw;
            }
        }
    }
}

void CudaTrainingSet::begin(const Model& model) {
    if (!work_ || work_->k != (int)model.k) {
        work_.reset();
        allocate(model);
    }
    work_->centroids->set(model, stream_.get());
}

void CudaTrainingSet::allocate(const Model& model) {
    if (shift_.offset.empty()) {
        // the same for all passes, whatever memory they get: scores, and
        // with them what is listed, depend on it
        shift_ = choose_shift(model);
    }
    size_t budget = options_.max_device_bytes;
    for (;;) {
        try {
            work_ = std::make_unique<Workspace>(
                    source_,
                    weighted_,
                    summation_,
                    model,
                    shift_,
                    budget,
                    stream_.get());
            // the memory is there in the order of stream_; copies into
            // it run on another stream and wait for these events
            for (const Event& chunk_free : free_) {
                FAISS_FLASH_CUDA_CHECK(
                        cudaEventRecord(chunk_free.get(), stream_.get()));
            }
            return;
        } catch (const OutOfDeviceMemory&) {
            const size_t tried = budget ? budget : device_info().free_bytes;
            if (tried < (size_t(1) << 20)) {
                throw;
            }
            budget = tried / 2;
        }
    }
}

template <class Fn>
void CudaTrainingSet::for_each_chunk(Fn&& fn) {
    const int64_t n = source_.n();
    if (work_->plan.resident) {
        Chunk& chunk = *work_->chunks[0];
        if (!work_->loaded) {
            load(chunk, 0, n, stream_.get());
            prepare(chunk, n);
            work_->loaded = true;
        }
        fn(chunk, 0, n);
        return;
    }
    // two chunks in turn: one is copied while the other is worked on
    const int64_t rows = work_->plan.chunk_rows;
    for (int64_t i = 0; i < work_->plan.chunks; i++) {
        const int64_t i0 = i * rows;
        const int64_t count = std::min(rows, n - i0);
        Chunk& chunk = *work_->chunks[i % 2];
        FAISS_FLASH_CUDA_CHECK(
                cudaStreamWaitEvent(copy_stream_.get(), free_[i % 2].get(), 0));
        load(chunk, i0, count, copy_stream_.get());
        FAISS_FLASH_CUDA_CHECK(
                cudaEventRecord(there_[i % 2].get(), copy_stream_.get()));
        FAISS_FLASH_CUDA_CHECK(
                cudaStreamWaitEvent(stream_.get(), there_[i % 2].get(), 0));
        prepare(chunk, count);
        fn(chunk, i0, count);
        FAISS_FLASH_CUDA_CHECK(
                cudaEventRecord(free_[i % 2].get(), stream_.get()));
    }
}

void CudaTrainingSet::load(
        Chunk& chunk,
        int64_t i0,
        int64_t count,
        cudaStream_t stream) {
    const DeviceVectors given = source_.on_device();
    const size_t first = i0 * source_.d();
    chunk.vectors = {chunk.x.get(), VectorType::float32};
    if (!given.data) {
        uploader_.upload_vectors(i0, count, chunk.x.get(), stream);
    } else if (work_->copied) {
        FAISS_FLASH_CUDA_CHECK(launch_to_floats(
                count * source_.d(), given.plus(first), chunk.x.get(), stream));
    } else {
        chunk.vectors = given.plus(first);
    }
    if (weighted_) {
        uploader_.upload_weights(i0, count, chunk.weights.get(), stream);
    }
}

void CudaTrainingSet::prepare(Chunk& chunk, int64_t count) {
    chunk.prepared.prepare(
            count, chunk.vectors, work_->centroids->shift(), stream_.get());
}

void CudaTrainingSet::assign(Chunk& chunk, int64_t i0) {
    chunk.prepared.assign(
            *work_->centroids,
            work_->unproved.get() + i0 / work_->plan.chunk_rows,
            device_,
            stream_.get());
}

void CudaTrainingSet::add(Chunk& chunk, int64_t i0, int64_t rows, bool l2) {
    const cudaStream_t stream = stream_.get();
    const float* means = work_->centroids->means();
    const DeviceStatistics out = work_->accumulators->view();
    if (work_->exact) {
        if (!work_->exact->started()) {
            // the same rows however the data are cut
            work_->exact->start(
                    std::min(rows, work_->block_rows), chunk.vectors, stream);
        }
        work_->exact->add(
                i0,
                rows,
                chunk.vectors,
                chunk.prepared.labels(),
                means,
                l2,
                out,
                stream);
        return;
    }
    FAISS_FLASH_CUDA_CHECK(
            update(work_->update_plan(rows),
                   static_cast<const float*>(chunk.vectors.data),
                   weighted_ ? chunk.weights.get() : nullptr,
                   chunk.prepared.labels(),
                   means,
                   l2,
                   out,
                   work_->scratch.get(),
                   stream));
}

} // namespace faiss_flash
