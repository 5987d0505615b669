#pragma once

// Files for the tests of the readers, made on the spot.

#include <hdf5.h>
#include <tests/catch_compat.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <faiss/impl/FaissException.h>

namespace test {

namespace fs = std::filesystem;

/// A folder that goes away with the test.
class TempDir {
   public:
    TempDir() {
        std::string name =
                (fs::temp_directory_path() / "flash_XXXXXX").string();
        REQUIRE(mkdtemp(&name[0]) != nullptr);
        path_ = name;
    }
    ~TempDir() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    std::string operator/(const std::string& name) const {
        return (path_ / name).string();
    }
    std::string path() const {
        return path_.string();
    }
    size_t count() const {
        return std::distance(
                fs::directory_iterator(path_), fs::directory_iterator());
    }

   private:
    fs::path path_;
};

inline void write_bytes(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string read_bytes(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
}

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
    return std::string(
            reinterpret_cast<const char*>(values.data()),
            values.size() * sizeof(T));
}

/// .fvecs, .bvecs, .ivecs: the dimension before every row.
template <typename T>
std::string vecs_bytes(const std::vector<T>& x, int32_t d) {
    std::string bytes;
    for (size_t i = 0; i < x.size(); i += d) {
        bytes += bytes_of(std::vector<int32_t>{d});
        bytes += bytes_of(std::vector<T>(&x[i], &x[i] + d));
    }
    return bytes;
}

/// .fbin and its kin: rows and dimension, then the rows.
template <typename T>
std::string bin_bytes(const std::vector<T>& x, uint32_t d) {
    const uint32_t n = static_cast<uint32_t>(x.size()) / d;
    return bytes_of(std::vector<uint32_t>{n, d}) + bytes_of(x);
}

/// n values of the whole range of an integer type, or normal floats.
template <typename T>
std::vector<T> random_values(size_t n, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<T> x(n);
    for (T& value : x) {
        if (std::is_integral<T>::value) {
            std::uniform_int_distribution<int64_t> any(
                    std::numeric_limits<T>::lowest(),
                    std::numeric_limits<T>::max());
            value = static_cast<T>(any(random));
        } else {
            value = static_cast<T>(std::normal_distribution<>()(random));
        }
    }
    return x;
}

/// The message of the FaissException `f` throws; a failure if it does not.
template <typename F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const faiss::FaissException& error) {
        return error.what();
    }
    FAIL("no FaissException");
    return "";
}

/// An HDF5 file, written without a look at what the readers expect.
class Hdf5Writer {
   public:
    explicit Hdf5Writer(const std::string& path)
            : file_(H5Fcreate(
                      path.c_str(),
                      H5F_ACC_TRUNC,
                      H5P_DEFAULT,
                      H5P_DEFAULT)) {
        REQUIRE(file_ >= 0);
    }
    ~Hdf5Writer() {
        H5Fclose(file_);
    }

    /// Values in memory of type `given`, stored as `stored`; chunk 0:
    /// contiguous, otherwise chunks of that many rows, compressed. Null
    /// values: the dataset is created and never written.
    void dataset(
            const char* name,
            hid_t stored,
            hid_t given,
            std::vector<hsize_t> shape,
            const void* values,
            hsize_t chunk = 0) {
        const hid_t space =
                H5Screate_simple(int(shape.size()), shape.data(), nullptr);
        const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
        if (chunk) {
            const hsize_t sides[2] = {chunk, shape[1]};
            H5Pset_chunk(plist, 2, sides);
            H5Pset_deflate(plist, 4);
        }
        const hid_t data = H5Dcreate2(
                file_, name, stored, space, H5P_DEFAULT, plist, H5P_DEFAULT);
        REQUIRE(data >= 0);
        if (values) {
            REQUIRE(H5Dwrite(
                            data,
                            given,
                            H5S_ALL,
                            H5S_ALL,
                            H5P_DEFAULT,
                            values) >= 0);
        }
        H5Dclose(data);
        H5Pclose(plist);
        H5Sclose(space);
    }

    void floats(const char* name, size_t d, const std::vector<float>& x) {
        dataset(name,
                H5T_IEEE_F32LE,
                H5T_NATIVE_FLOAT,
                {x.size() / d, d},
                x.data());
    }

    void ints(const char* name, size_t d, const std::vector<int32_t>& x) {
        dataset(name,
                H5T_STD_I32LE,
                H5T_NATIVE_INT32,
                {x.size() / d, d},
                x.data());
    }

    void group(const char* name) {
        H5Gclose(
                H5Gcreate2(file_, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }

    /// A text attribute of the root; length 0: variable length.
    void attribute(const char* name, const std::string& text, size_t length) {
        const hid_t type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, length ? length : H5T_VARIABLE);
        const hid_t space = H5Screate(H5S_SCALAR);
        const hid_t attr =
                H5Acreate2(file_, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
        std::string padded = text;
        padded.resize(std::max(length, text.size() + 1));
        const char* pointer = padded.c_str();
        REQUIRE(H5Awrite(
                        attr,
                        type,
                        length ? static_cast<const void*>(pointer)
                               : static_cast<const void*>(&pointer)) >= 0);
        H5Aclose(attr);
        H5Sclose(space);
        H5Tclose(type);
    }

   private:
    hid_t file_;
};

} // namespace test
