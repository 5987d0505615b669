#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace faiss_flash {

/// How one component is stored. Half precision is not supported.
enum class ElementType { float32, float64, uint8, int8, integer };

/// One file format's access to an (n, d) matrix. Internal to the readers:
/// VectorFile and IdFile check ranges and put a face on it.
///
/// Reading is const and safe from several threads at once.
class RowStore {
   public:
    virtual ~RowStore() = default;

    size_t n() const {
        return n_;
    }
    size_t d() const {
        return d_;
    }
    ElementType element() const {
        return element_;
    }
    /// File name, and inside HDF5 "file.hdf5:dataset": how errors call it.
    const std::string& name() const {
        return name_;
    }

    /// Rows [i0, i0 + count) converted to float, row-major into `out`.
    /// The caller has checked the range. Throws on a short read.
    virtual void read_floats(size_t i0, size_t count, float* out) const = 0;

    /// The same as 64-bit integers, for files of ids.
    virtual void read_ints(size_t i0, size_t count, int64_t* out) const = 0;

   protected:
    RowStore(std::string name, ElementType element)
            : name_(std::move(name)),
              element_(element) {}

    std::string name_;
    size_t n_ = 0, d_ = 0;
    ElementType element_;
};

} // namespace faiss_flash
