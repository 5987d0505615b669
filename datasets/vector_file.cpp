#include <datasets/vector_file.h>

#include <cmath>
#include <utility>

#include <datasets/hdf5_rows.h>
#include <datasets/mapped_rows.h>
#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace {

std::string extension(const std::string& path) {
    const size_t slash = path.find_last_of('/');
    const size_t dot = path.find_last_of('.');
    const bool has = dot != std::string::npos &&
            (slash == std::string::npos || dot > slash);
    return has ? path.substr(dot) : "";
}

/// One line per format with rows at fixed distances.
struct Format {
    const char* extension;
    ElementType element;
    std::shared_ptr<const RowStore> (*open)(const std::string&, ElementType);
};

const Format formats[] = {
        {".fvecs", ElementType::float32, open_vecs_rows},
        {".bvecs", ElementType::uint8, open_vecs_rows},
        {".ivecs", ElementType::integer, open_vecs_rows},
        {".fbin", ElementType::float32, open_bin_rows},
        {".u8bin", ElementType::uint8, open_bin_rows},
        {".i8bin", ElementType::int8, open_bin_rows},
        {".ibin", ElementType::integer, open_bin_rows},
};

const Format* find_format(const std::string& path) {
    const std::string wanted = extension(path);
    for (const Format& format : formats) {
        if (wanted == format.extension) {
            return &format;
        }
    }
    return nullptr;
}

void check_range(const RowStore& rows, size_t n, size_t i0, size_t count) {
    FAISS_THROW_IF_NOT_FMT(
            i0 <= n && count <= n - i0,
            "%s: %zu rows from row %zu wanted, it has %zu",
            rows.name().c_str(),
            count,
            i0,
            n);
}

} // namespace

bool is_hdf5_file(const std::string& path) {
    const std::string ext = extension(path);
    return ext == ".hdf5" || ext == ".h5";
}

bool is_vector_file(const std::string& path) {
    const Format* format = find_format(path);
    return is_hdf5_file(path) ||
            (format && format->element != ElementType::integer);
}

bool is_id_file(const std::string& path) {
    const Format* format = find_format(path);
    return is_hdf5_file(path) ||
            (format && format->element == ElementType::integer);
}

void normalize_rows(
        size_t n,
        size_t d,
        float* x,
        size_t first_row,
        const std::string& name,
        ZeroRow zero) {
    for (size_t i = 0; i < n; i++) {
        float* row = x + i * d;
        double norm_sq = 0;
        for (size_t j = 0; j < d; j++) {
            norm_sq += double(row[j]) * row[j];
        }
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(norm_sq),
                "%s: row %zu holds a NaN or an infinity",
                name.c_str(),
                first_row + i);
        if (norm_sq == 0) {
            FAISS_THROW_IF_NOT_FMT(
                    zero == ZeroRow::keep,
                    "%s: row %zu is all zeros and cannot be scaled to length "
                    "1",
                    name.c_str(),
                    first_row + i);
            continue;
        }
        const double norm = std::sqrt(norm_sq);
        for (size_t j = 0; j < d; j++) {
            row[j] = static_cast<float>(row[j] / norm);
        }
    }
}

VectorFile::VectorFile(std::shared_ptr<const RowStore> rows)
        : rows_(std::move(rows)),
          n_(rows_->n()) {}

void VectorFile::read(size_t i0, size_t count, float* out) const {
    check_range(*rows_, n_, i0, count);
    if (count == 0) {
        return;
    }
    rows_->read_floats(i0, count, out);
    if (normalize_) {
        normalize_rows(count, d(), out, i0, name(), zero_);
    }
}

VectorFile VectorFile::normalized(ZeroRow zero) const {
    VectorFile other = *this;
    other.normalize_ = true;
    other.zero_ = zero;
    return other;
}

VectorFile VectorFile::first_rows(size_t count) const {
    FAISS_THROW_IF_NOT_FMT(
            count >= 1 && count <= n_,
            "%s: the first %zu rows wanted, must be between 1 and %zu",
            name().c_str(),
            count,
            n_);
    VectorFile other = *this;
    other.n_ = count;
    return other;
}

IdFile::IdFile(std::shared_ptr<const RowStore> rows) : rows_(std::move(rows)) {}

void IdFile::read(size_t i0, size_t count, int64_t bound, int64_t* out) const {
    check_range(*rows_, n(), i0, count);
    if (count == 0) {
        return;
    }
    rows_->read_ints(i0, count, out);
    for (size_t i = 0; i < count * k(); i++) {
        FAISS_THROW_IF_NOT_FMT(
                out[i] >= 0 && out[i] < bound,
                "%s: row %zu, column %zu holds id %lld, must be between 0 "
                "and %lld",
                name().c_str(),
                i0 + i / k(),
                i % k(),
                static_cast<long long>(out[i]),
                static_cast<long long>(bound) - 1);
    }
}

VectorFile open_vectors(
        const std::string& path,
        const std::string& hdf5_dataset) {
    FAISS_THROW_IF_NOT_FMT(
            is_vector_file(path),
            "%s: unknown extension for vectors, must be .fvecs, .bvecs, "
            ".fbin, .u8bin, .i8bin, .hdf5 or .h5",
            path.c_str());
    if (is_hdf5_file(path)) {
        return VectorFile(open_hdf5_rows(path, hdf5_dataset));
    }
    const Format* format = find_format(path);
    return VectorFile(format->open(path, format->element));
}

IdFile open_ids(const std::string& path, const std::string& hdf5_dataset) {
    FAISS_THROW_IF_NOT_FMT(
            is_id_file(path),
            "%s: unknown extension for ids, must be .ivecs, .ibin, .hdf5 or "
            ".h5",
            path.c_str());
    if (is_hdf5_file(path)) {
        auto rows = open_hdf5_rows(path, hdf5_dataset);
        const ElementType element = rows->element();
        FAISS_THROW_IF_NOT_FMT(
                element != ElementType::float32 &&
                        element != ElementType::float64,
                "%s: ids must be integers, this holds floating point",
                rows->name().c_str());
        return IdFile(std::move(rows));
    }
    const Format* format = find_format(path);
    return IdFile(format->open(path, format->element));
}

} // namespace faiss_flash
