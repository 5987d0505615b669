#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <faiss_flash/faiss_compat.h>
#include <faiss_flash/trainer/vector_type.h>

namespace faiss_flash {

/// n vectors of dimension d that can be read in any order of row ranges.
/// Sources are read from one thread at a time.
class VectorSource {
   public:
    VectorSource(size_t n, size_t d) : n_(n), d_(d) {}
    virtual ~VectorSource() = default;

    size_t n() const {
        return n_;
    }
    size_t d() const {
        return d_;
    }

    /// Rows [i0, i0 + count) as (count, d) floats: a pointer into the data
    /// itself where it lies in memory like that, otherwise into `buffer`,
    /// which the call resizes.
    virtual const float* rows(
            size_t i0,
            size_t count,
            std::vector<float>& buffer) const = 0;

    /// The rows of these numbers, in their order, to `to`, (count, d).
    virtual void gather(const int64_t* numbers, size_t count, float* to) const;

    /// One weight per vector for the same rows, or nullptr: all are 1.
    virtual const float* weights(
            size_t i0,
            size_t count,
            std::vector<float>& buffer) const = 0;

    /// All rows where they lie on the current device; nowhere: they don't.
    virtual DeviceVectors on_device() const {
        return {};
    }

   private:
    size_t n_, d_;
};

/// Vectors in memory, not copied; `weights` may be nullptr.
std::unique_ptr<VectorSource> array_source(
        size_t n,
        size_t d,
        const float* x,
        const float* weights);

/// Vectors encoded by a FAISS codec (sa_encode), decoded as they are read,
/// `block` at a time.
std::unique_ptr<VectorSource> codec_source(
        size_t n,
        const faiss::Index& codec,
        const uint8_t* codes,
        size_t block,
        const float* weights);

/// The given rows of another source, in the given order, gathered as they
/// are read: a subsample costs its row numbers, not a copy of the vectors.
std::unique_ptr<VectorSource> subset_source(
        std::unique_ptr<VectorSource> base,
        std::vector<int64_t> row_numbers);

} // namespace faiss_flash
