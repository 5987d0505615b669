#include <datasets/hdf5_rows.h>

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <datasets/hdf5_handle.h>
#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace {

/// Deflate cannot compress better than 1032:1, so a dataset that claims to
/// be larger than this many times its bytes on disk is not a data set of
/// vectors; refusing it keeps every allocation in proportion to the file.
constexpr uint64_t max_compression = 1100;

Hdf5Handle open_file(const std::string& path, uint64_t* file_bytes) {
    struct stat info;
    FAISS_THROW_IF_NOT_FMT(
            stat(path.c_str(), &info) == 0,
            "%s: cannot open: %s",
            path.c_str(),
            std::strerror(errno));
    FAISS_THROW_IF_NOT_FMT(
            S_ISREG(info.st_mode), "%s: not a regular file", path.c_str());
    *file_bytes = static_cast<uint64_t>(info.st_size);
    Hdf5Handle file(
            H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
    FAISS_THROW_IF_NOT_FMT(
            bool(file),
            "%s: cannot open as HDF5 (another format, or truncated): %s",
            path.c_str(),
            hdf5_error().c_str());
    return file;
}

bool has_dataset(hid_t file, const std::string& dataset) {
    if (H5Lexists(file, dataset.c_str(), H5P_DEFAULT) <= 0) {
        return false;
    }
    const Hdf5Handle object(
            H5Oopen(file, dataset.c_str(), H5P_DEFAULT), H5Oclose);
    return object && H5Iget_type(object.get()) == H5I_DATASET;
}

class Hdf5Rows : public RowStore {
   public:
    Hdf5Rows(const std::string& path, const std::string& dataset)
            : RowStore(path + ":" + dataset, ElementType::integer) {
        const Hdf5Section section;
        uint64_t file_bytes = 0;
        file_ = open_file(path, &file_bytes);
        FAISS_THROW_IF_NOT_FMT(
                has_dataset(file_.get(), dataset),
                "%s: has no dataset '%s'",
                path.c_str(),
                dataset.c_str());
        data_ = Hdf5Handle(
                H5Dopen2(file_.get(), dataset.c_str(), H5P_DEFAULT), H5Dclose);
        FAISS_THROW_IF_NOT_FMT(
                bool(data_),
                "%s: cannot open: %s",
                name_.c_str(),
                hdf5_error().c_str());
        read_type();
        read_shape();
        check_storage(file_bytes);
        open_with_chunk_cache(dataset);
    }

    ~Hdf5Rows() override {
        const Hdf5Section section;
        data_.reset();
        file_.reset();
    }

    void read_floats(size_t i0, size_t count, float* out) const override {
        read(i0, count, H5T_NATIVE_FLOAT, out);
    }

    void read_ints(size_t i0, size_t count, int64_t* out) const override {
        read(i0, count, H5T_NATIVE_INT64, out);
    }

   private:
    void read_type() {
        const Hdf5Handle type(H5Dget_type(data_.get()), H5Tclose);
        const H5T_class_t kind = H5Tget_class(type.get());
        element_bytes_ = H5Tget_size(type.get());
        FAISS_THROW_IF_NOT_FMT(
                (kind == H5T_INTEGER || kind == H5T_FLOAT) &&
                        element_bytes_ >= 1 && element_bytes_ <= 8,
                "%s: must hold integers or floats of 1 to 8 bytes, holds "
                "HDF5 class %d of %zu bytes",
                name_.c_str(),
                int(kind),
                element_bytes_);
        if (kind == H5T_FLOAT) {
            element_ = element_bytes_ > 4 ? ElementType::float64
                                          : ElementType::float32;
        } else if (element_bytes_ == 1) {
            element_ = H5Tget_sign(type.get()) == H5T_SGN_NONE
                    ? ElementType::uint8
                    : ElementType::int8;
        }
    }

    void read_shape() {
        const Hdf5Handle space(H5Dget_space(data_.get()), H5Sclose);
        const int rank = H5Sget_simple_extent_ndims(space.get());
        FAISS_THROW_IF_NOT_FMT(
                rank == 2,
                "%s: has %d dimensions, must have 2 (rows, components)",
                name_.c_str(),
                rank);
        hsize_t shape[2] = {0, 0};
        H5Sget_simple_extent_dims(space.get(), shape, nullptr);
        FAISS_THROW_IF_NOT_FMT(
                shape[0] >= 1 && shape[1] >= 1,
                "%s: is %llu x %llu, both must be at least 1",
                name_.c_str(),
                static_cast<unsigned long long>(shape[0]),
                static_cast<unsigned long long>(shape[1]));
        n_ = shape[0];
        d_ = shape[1];
    }

    /// The claimed shape against the bytes that are really there. HDF5 would
    /// give zeros for parts of a dataset that were never written.
    void check_storage(uint64_t file_bytes) {
        const Hdf5Handle plist(H5Dget_create_plist(data_.get()), H5Pclose);
        const H5D_layout_t layout = H5Pget_layout(plist.get());
        const uint64_t stored = H5Dget_storage_size(data_.get());
        FAISS_THROW_IF_NOT_FMT(
                (layout == H5D_COMPACT || layout == H5D_CONTIGUOUS ||
                 layout == H5D_CHUNKED) &&
                        H5Pget_external_count(plist.get()) == 0,
                "%s: is stored outside this file",
                name_.c_str());
        FAISS_THROW_IF_NOT_FMT(
                stored <= file_bytes,
                "%s: claims %llu bytes of storage, the file has %llu",
                name_.c_str(),
                static_cast<unsigned long long>(stored),
                static_cast<unsigned long long>(file_bytes));
        if (layout == H5D_CHUNKED) {
            check_chunks(plist.get(), stored);
            return;
        }
        // Nothing is compressed: divide, as the product may not fit.
        FAISS_THROW_IF_NOT_FMT(
                n_ <= stored / element_bytes_ / d_,
                "%s: is %zu x %zu of %zu bytes, only %llu bytes are stored",
                name_.c_str(),
                n_,
                d_,
                element_bytes_,
                static_cast<unsigned long long>(stored));
    }

    void check_chunks(hid_t plist, uint64_t stored) {
        FAISS_THROW_IF_NOT_FMT(
                n_ <= stored * max_compression / element_bytes_ / d_,
                "%s: is %zu x %zu of %zu bytes, which its %llu stored bytes "
                "cannot hold",
                name_.c_str(),
                n_,
                d_,
                element_bytes_,
                static_cast<unsigned long long>(stored));
        hsize_t chunk[2] = {1, 1};
        H5Pget_chunk(plist, 2, chunk);
        // Chunk sides are below 2^32.
        chunk_bytes_ = uint64_t(chunk[0]) * chunk[1] <= UINT64_MAX / 8
                ? chunk[0] * chunk[1] * element_bytes_
                : UINT64_MAX;
        FAISS_THROW_IF_NOT_FMT(
                chunk_bytes_ <= stored * max_compression,
                "%s: chunks of %llu x %llu, which its %llu stored bytes "
                "cannot hold",
                name_.c_str(),
                static_cast<unsigned long long>(chunk[0]),
                static_cast<unsigned long long>(chunk[1]),
                static_cast<unsigned long long>(stored));
        chunks_per_row_ = (d_ + chunk[1] - 1) / chunk[1];
        const uint64_t wanted =
                ((n_ + chunk[0] - 1) / chunk[0]) * chunks_per_row_;
        const Hdf5Handle space(H5Dget_space(data_.get()), H5Sclose);
        hsize_t written = 0;
        H5Dget_num_chunks(data_.get(), space.get(), &written);
        FAISS_THROW_IF_NOT_FMT(
                written >= wanted,
                "%s: %llu of %llu chunks are there, the file is incomplete",
                name_.c_str(),
                static_cast<unsigned long long>(written),
                static_cast<unsigned long long>(wanted));
    }

    /// Opens again with a cache that holds the chunks of one row of chunks:
    /// otherwise reads in small steps would decompress the same chunks again
    /// and again. Capped, since hundreds of MB would be worse.
    void open_with_chunk_cache(const std::string& dataset) {
        const uint64_t wanted = chunk_bytes_ * chunks_per_row_;
        constexpr uint64_t hdf5_default = 1 << 20, cap = 64 << 20;
        if (wanted <= hdf5_default || wanted > cap) {
            return;
        }
        const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
        // 12421 slots: a prime well above the number of chunks cached, as
        // HDF5 asks for; 1: forget fully read chunks first.
        H5Pset_chunk_cache(access.get(), 12421, wanted, 1.0);
        // Close first: the cache belongs to the first one that opened it.
        data_.reset();
        data_ = Hdf5Handle(
                H5Dopen2(file_.get(), dataset.c_str(), access.get()), H5Dclose);
        FAISS_THROW_IF_NOT_FMT(
                bool(data_),
                "%s: cannot open: %s",
                name_.c_str(),
                hdf5_error().c_str());
    }

    void read(size_t i0, size_t count, hid_t type, void* out) const {
        const Hdf5Section section;
        const hsize_t start[2] = {i0, 0}, size[2] = {count, d_};
        const Hdf5Handle from(H5Dget_space(data_.get()), H5Sclose);
        const Hdf5Handle to(H5Screate_simple(2, size, nullptr), H5Sclose);
        const bool ok = H5Sselect_hyperslab(
                                from.get(),
                                H5S_SELECT_SET,
                                start,
                                nullptr,
                                size,
                                nullptr) >= 0 &&
                H5Dread(data_.get(),
                        type,
                        to.get(),
                        from.get(),
                        H5P_DEFAULT,
                        out) >= 0;
        FAISS_THROW_IF_NOT_FMT(
                ok,
                "%s: cannot read rows %zu to %zu: %s",
                name_.c_str(),
                i0,
                i0 + count - 1,
                hdf5_error().c_str());
    }

    Hdf5Handle file_, data_;
    size_t element_bytes_ = 0;
    uint64_t chunk_bytes_ = 0;
    uint64_t chunks_per_row_ = 0;
};

} // namespace

std::shared_ptr<const RowStore> open_hdf5_rows(
        const std::string& path,
        const std::string& dataset) {
    return std::make_shared<Hdf5Rows>(path, dataset);
}

bool hdf5_has_dataset(const std::string& path, const std::string& dataset) {
    const Hdf5Section section;
    uint64_t file_bytes = 0;
    const Hdf5Handle file = open_file(path, &file_bytes);
    return has_dataset(file.get(), dataset);
}

std::string read_hdf5_attribute(
        const std::string& path,
        const std::string& attribute) {
    const Hdf5Section section;
    uint64_t file_bytes = 0;
    const Hdf5Handle file = open_file(path, &file_bytes);
    FAISS_THROW_IF_NOT_FMT(
            H5Aexists(file.get(), attribute.c_str()) > 0,
            "%s: has no attribute '%s'",
            path.c_str(),
            attribute.c_str());
    const Hdf5Handle attr(
            H5Aopen(file.get(), attribute.c_str(), H5P_DEFAULT), H5Aclose);
    const Hdf5Handle type(H5Aget_type(attr.get()), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attr.get()), H5Sclose);
    const size_t bytes = H5Tget_size(type.get());
    FAISS_THROW_IF_NOT_FMT(
            attr && H5Tget_class(type.get()) == H5T_STRING &&
                    H5Sget_simple_extent_npoints(space.get()) == 1 &&
                    bytes >= 1 && bytes <= 4096,
            "%s: attribute '%s' must be one text",
            path.c_str(),
            attribute.c_str());
    std::string text;
    bool ok = false;
    if (H5Tis_variable_str(type.get()) > 0) {
        char* value = nullptr;
        ok = H5Aread(attr.get(), type.get(), &value) >= 0 && value;
        if (ok) {
            text = value;
        }
        if (value) {
            H5free_memory(value);
        }
    } else {
        text.resize(bytes);
        ok = H5Aread(attr.get(), type.get(), &text[0]) >= 0;
        // Fixed length: padded with NUL or blanks.
        text.resize(std::min(text.find('\0'), text.size()));
        text.resize(text.find_last_not_of(' ') + 1);
    }
    FAISS_THROW_IF_NOT_FMT(
            ok,
            "%s: cannot read attribute '%s': %s",
            path.c_str(),
            attribute.c_str(),
            hdf5_error().c_str());
    return text;
}

} // namespace faiss_flash
