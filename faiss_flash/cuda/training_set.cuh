#pragma once

#include <memory>

#include <faiss_flash/cuda/mixture/query.cuh>
#include <faiss_flash/cuda/uploader.h>
#include <faiss_flash/cuda/workspace.cuh>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

/// A training set on the current device: resident, or streamed through it
/// where it does not fit.
class CudaTrainingSet : public TrainingSet {
   public:
    /// @param source  must outlive it
    CudaTrainingSet(const VectorSource& source, const EngineOptions& options);
    ~CudaTrainingSet() override;

    /// Where it throws, the next pass starts from nothing.
    void accumulate(const Model& model, Pass pass, Statistics& out) override;

    /// The m best of every vector.
    void answer(const Model& model, const ListQuery::Answer& answer);

    /// Nearest centroid of every vector; (n).
    void labels(const Model& model, uint32_t* labels);

   private:
    /// Until nothing reads or writes what this owns: uploads may still be
    /// reading page-locked blocks.
    void finish();
    void accumulate_hard(const Model& model, Statistics& out);
    void accumulate_soft(const Model& model, Statistics& out);
    /// Memory for soft passes, beside what the data takes where possible.
    void begin_mixture(const Model& model);
    /// Memory for this model, and the model itself on the device.
    void begin(const Model& model);
    /// Others may hold memory that looked free: halve what is asked for
    /// until it is there, or there is no smaller way.
    void allocate(const Model& model);

    /// fn(chunk, first row, rows) with the chunk's vectors on the device,
    /// in the order of stream_.
    template <class Fn>
    void for_each_chunk(Fn&& fn);

    void load(Chunk& chunk, int64_t i0, int64_t count, cudaStream_t stream);
    void prepare(Chunk& chunk, int64_t count);
    void assign(Chunk& chunk, int64_t i0);
    /// Rows [i0, i0 + rows), assigned, to the statistics of the pass.
    void add(Chunk& chunk, int64_t i0, int64_t rows, bool l2);

    const VectorSource& source_;
    const EngineOptions options_;
    const DeviceInfo device_;
    Stream stream_;
    Stream copy_stream_;
    Event there_[2], free_[2]; ///< chunk copied, chunk no longer needed
    Uploader uploader_;
    bool weighted_ = false;
    Summation summation_ = Summation::exact;
    HostShift shift_; ///< empty until the first pass
    std::unique_ptr<Workspace> work_;
};

} // namespace faiss_flash
