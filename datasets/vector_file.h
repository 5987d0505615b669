#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <datasets/row_store.h>

namespace faiss_flash {

/// What to do with a row of zeros, which has no direction, when rows are
/// scaled to length 1. `keep` leaves it zero, at angular distance 1 from
/// everything (real sets of quantised word vectors hold such rows); `refuse`
/// throws naming the row.
enum class ZeroRow { refuse, keep };

/// Vectors in a file: shape known at once, rows read when asked for.
///
/// Opening reads headers only; read() costs the rows asked for. Formats and
/// their byte layouts are in datasets/README.md. const and safe from several
/// threads at once (HDF5 reads take turns).
class VectorFile {
   public:
    explicit VectorFile(std::shared_ptr<const RowStore> rows);

    /// Number of rows, at least 1.
    size_t n() const {
        return n_;
    }
    /// Components per row, at least 1.
    size_t d() const {
        return rows_->d();
    }
    /// How the file stores a component; read() always gives float.
    ElementType element() const {
        return rows_->element();
    }
    const std::string& name() const {
        return rows_->name();
    }

    /// Rows [i0, i0 + count), row-major (count, d), into `out`.
    /// Throws faiss::FaissException for a range outside [0, n), for a file
    /// that has become shorter, and, for normalized() rows, for a row that
    /// cannot be scaled.
    void read(size_t i0, size_t count, float* out) const;

    /// The same file whose read() divides every row by its L2 norm (norm and
    /// quotient in double). A row with a NaN or an infinity throws naming the
    /// row; for a row of zeros see ZeroRow. No row is ever skipped, so row
    /// numbers stay those of the file.
    VectorFile normalized(ZeroRow zero = ZeroRow::refuse) const;

    /// The same file cut to its first `count` rows, 1 <= count <= n.
    VectorFile first_rows(size_t count) const;

    bool is_normalized() const {
        return normalize_;
    }

   private:
    std::shared_ptr<const RowStore> rows_;
    size_t n_;
    bool normalize_ = false;
    ZeroRow zero_ = ZeroRow::refuse;
};

/// Ids in a file (ground truth): n rows of k ids each.
class IdFile {
   public:
    explicit IdFile(std::shared_ptr<const RowStore> rows);

    size_t n() const {
        return rows_->n();
    }
    /// Ids per row.
    size_t k() const {
        return rows_->d();
    }
    const std::string& name() const {
        return rows_->name();
    }

    /// Rows [i0, i0 + count), row-major (count, k). Every id must lie in
    /// [0, bound); throws naming the row, the column and the id otherwise.
    void read(size_t i0, size_t count, int64_t bound, int64_t* out) const;

   private:
    std::shared_ptr<const RowStore> rows_;
};

/// Opens vectors by the file's extension: .fvecs .bvecs .fbin .u8bin .i8bin
/// .hdf5 .h5; `hdf5_dataset` is looked at for the last two only.
/// Throws faiss::FaissException naming the file and what was expected: no
/// such file, unknown extension, missing dataset, impossible or hostile
/// header, file shorter or longer than its header says.
VectorFile open_vectors(
        const std::string& path,
        const std::string& hdf5_dataset = "train");

/// Opens ids: .ivecs .ibin .hdf5 .h5. Errors as open_vectors().
IdFile open_ids(
        const std::string& path,
        const std::string& hdf5_dataset = "neighbors");

/// True for the extensions open_vectors() reads, or open_ids() reads.
bool is_vector_file(const std::string& path);
bool is_id_file(const std::string& path);

/// True for .hdf5 and .h5.
bool is_hdf5_file(const std::string& path);

/// Scales n rows of d components to L2 norm 1 in place. `first_row` is the
/// number of x's first row in `name`, for the error that a row with a NaN or
/// an infinity throws, and a row of zeros unless it is kept.
void normalize_rows(
        size_t n,
        size_t d,
        float* x,
        size_t first_row,
        const std::string& name,
        ZeroRow zero = ZeroRow::refuse);

} // namespace faiss_flash
