// HDF5 files against files made here, and the bundled sample.

#include <datasets/vector_file.h>
#include <tests/catch_compat.h>
#include <tests/datasets_util.h>

using namespace faiss_flash;
using namespace test;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string open_error(const std::string& path, const std::string& dataset) {
    return error_of([&] { open_vectors(path, dataset); });
}

/// Stores as `stored` what memory holds as `given`, chunked and not, and
/// reads it back by ranges.
template <typename T>
void check_type(hid_t stored, hid_t given, ElementType element) {
    const TempDir dir;
    const size_t n = 23, d = 5;
    const auto x = random_values<T>(n * d, 11);
    {
        Hdf5Writer writer(dir / "x.hdf5");
        writer.dataset("flat", stored, given, {n, d}, x.data());
        writer.dataset("chunked", stored, given, {n, d}, x.data(), 4);
    }
    for (const char* name : {"flat", "chunked"}) {
        CAPTURE(name);
        const VectorFile file = open_vectors(dir / "x.hdf5", name);
        REQUIRE(file.n() == n);
        REQUIRE(file.d() == d);
        CHECK(file.element() == element);
        for (size_t step : {n, size_t(1), size_t(7)}) {
            for (size_t i0 = 0; i0 < n; i0 += step) {
                const size_t count = std::min(step, n - i0);
                std::vector<float> rows(count * d + 1, -7.5f);
                file.read(i0, count, rows.data());
                for (size_t j = 0; j < count * d; j++) {
                    REQUIRE(rows[j] == static_cast<float>(x[i0 * d + j]));
                }
                CHECK(rows.back() == -7.5f);
            }
        }
        float unused = 0;
        CHECK_THAT(
                error_of([&] { file.read(n - 1, 2, &unused); }),
                ContainsSubstring(std::string("x.hdf5:") + name));
    }
}

} // namespace

TEST_CASE("HDF5 integers and floats become floats", "[datasets][hdf5]") {
    check_type<uint8_t>(H5T_STD_U8LE, H5T_NATIVE_UINT8, ElementType::uint8);
    check_type<int8_t>(H5T_STD_I8LE, H5T_NATIVE_INT8, ElementType::int8);
    check_type<int16_t>(H5T_STD_I16BE, H5T_NATIVE_INT16, ElementType::integer);
    check_type<int64_t>(H5T_STD_I64LE, H5T_NATIVE_INT64, ElementType::integer);
    check_type<float>(H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, ElementType::float32);
    check_type<float>(H5T_IEEE_F32BE, H5T_NATIVE_FLOAT, ElementType::float32);
    check_type<double>(H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, ElementType::float64);
}

TEST_CASE("HDF5 ids are integers", "[datasets][hdf5]") {
    const TempDir dir;
    const std::vector<int64_t> ids{5, 0, 3000000000, 4, 1, 2};
    {
        Hdf5Writer writer(dir / "x.hdf5");
        writer.dataset(
                "neighbors",
                H5T_STD_I64LE,
                H5T_NATIVE_INT64,
                {2, 3},
                ids.data());
        writer.floats("floats", 1, {1, 2});
    }
    const IdFile file = open_ids(dir / "x.hdf5");
    CHECK(file.n() == 2);
    CHECK(file.k() == 3);
    std::vector<int64_t> read(6);
    file.read(0, 2, 3000000001, read.data());
    CHECK(read == ids);
    CHECK_THAT(
            error_of([&] { file.read(0, 2, 3000000000, read.data()); }),
            ContainsSubstring("row 0, column 2 holds id 3000000000"));
    CHECK_THAT(
            error_of([&] { open_ids(dir / "x.hdf5", "floats"); }),
            ContainsSubstring("ids must be integers"));
}

TEST_CASE(
        "HDF5 datasets that cannot be vectors are refused",
        "[datasets][hdf5]") {
    const TempDir dir;
    const std::string path = dir / "x.h5";
    const std::vector<float> x(24, 1.0f);
    {
        Hdf5Writer writer(path);
        const hid_t f = H5T_IEEE_F32LE, m = H5T_NATIVE_FLOAT;
        writer.dataset("line", f, m, {24}, x.data());
        writer.dataset("cube", f, m, {2, 3, 4}, x.data());
        writer.dataset("empty", f, m, {0, 3}, nullptr);
        writer.group("group");
        const hid_t text = H5Tcopy(H5T_C_S1);
        H5Tset_size(text, 4);
        writer.dataset("text", text, text, {4, 6}, x.data());
        H5Tclose(text);
    }
    CHECK_THAT(open_error(path, "line"), ContainsSubstring("1 dimensions"));
    CHECK_THAT(open_error(path, "cube"), ContainsSubstring("3 dimensions"));
    CHECK_THAT(open_error(path, "empty"), ContainsSubstring("is 0 x 3"));
    CHECK_THAT(
            open_error(path, "text"),
            ContainsSubstring("must hold integers or floats"));
    for (const char* name : {"group", "none", "group/none", "none/none"}) {
        CHECK_THAT(
                open_error(path, name),
                ContainsSubstring(
                        std::string("x.h5: has no dataset '") + name + "'"));
    }
}

TEST_CASE("HDF5 shapes must have their bytes", "[datasets][hdf5]") {
    const TempDir dir;
    const std::string path = dir / "x.hdf5";
    const hsize_t huge = hsize_t(1) << 40;
    {
        Hdf5Writer writer(path);
        const hid_t f = H5T_IEEE_F32LE, m = H5T_NATIVE_FLOAT;
        // Created, never written: HDF5 would read zeros.
        writer.dataset("unwritten", f, m, {huge, 128}, nullptr);
        writer.dataset("unwritten_chunks", f, m, {huge, 128}, nullptr, 1024);
        // Highly compressible, but with all its chunks there.
        const std::vector<float> zeros(8192 * 16);
        writer.dataset("zeros", f, m, {8192, 16}, zeros.data(), 4096);
    }
    CHECK_THAT(
            open_error(path, "unwritten"),
            ContainsSubstring("only 0 bytes are stored"));
    CHECK_THAT(
            open_error(path, "unwritten_chunks"),
            ContainsSubstring("which its 0 stored bytes cannot hold"));
    CHECK(open_vectors(path, "zeros").n() == 8192);
}

TEST_CASE("HDF5 files with missing chunks are refused", "[datasets][hdf5]") {
    const TempDir dir;
    const std::string path = dir / "x.hdf5";
    const auto x = random_values<float>(40 * 8, 2);
    const hid_t file =
            H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hsize_t shape[2] = {50, 8}, chunk[2] = {10, 8};
    const hsize_t start[2] = {0, 0}, part[2] = {40, 8};
    const hid_t space = H5Screate_simple(2, shape, nullptr);
    const hid_t memory = H5Screate_simple(2, part, nullptr);
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 2, chunk);
    const hid_t data = H5Dcreate2(
            file,
            "train",
            H5T_IEEE_F32LE,
            space,
            H5P_DEFAULT,
            plist,
            H5P_DEFAULT);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, part, nullptr);
    REQUIRE(H5Dwrite(
                    data,
                    H5T_NATIVE_FLOAT,
                    memory,
                    space,
                    H5P_DEFAULT,
                    x.data()) >= 0);
    H5Dclose(data);
    H5Pclose(plist);
    H5Sclose(memory);
    H5Sclose(space);
    H5Fclose(file);
    CHECK_THAT(
            open_error(path, "train"),
            ContainsSubstring("4 of 5 chunks are there"));
}

TEST_CASE("HDF5 files cut at any length never crash", "[datasets][hdf5]") {
    const TempDir dir;
    const size_t n = 64, d = 4;
    const auto x = random_values<float>(n * d, 2);
    {
        Hdf5Writer writer(dir / "whole.hdf5");
        writer.dataset(
                "train",
                H5T_IEEE_F32LE,
                H5T_NATIVE_FLOAT,
                {n, d},
                x.data(),
                16);
    }
    const std::string bytes = read_bytes(dir / "whole.hdf5");
    const std::string path = dir / "cut.hdf5";
    for (size_t size = 1; size < bytes.size(); size += 97) {
        write_bytes(path, bytes.substr(0, size));
        CHECK_THAT(
                open_error(path, "train"),
                ContainsSubstring("cannot open as HDF5"));
    }
    write_bytes(path, "this is not HDF5");
    CHECK_THAT(
            open_error(path, "train"),
            ContainsSubstring("cut.hdf5: cannot open as HDF5"));
    CHECK_THAT(
            open_error(dir / "none.hdf5", "train"),
            ContainsSubstring("No such file"));
    fs::create_directory(dir / "folder.hdf5");
    CHECK_THAT(
            open_error(dir / "folder.hdf5", "train"),
            ContainsSubstring("not a regular file"));
}

TEST_CASE("a damaged HDF5 chunk is an error when read", "[datasets][hdf5]") {
    const TempDir dir;
    const std::string path = dir / "x.hdf5";
    const size_t n = 512, d = 16;
    const auto x = random_values<float>(n * d, 2);
    {
        Hdf5Writer writer(path);
        writer.dataset(
                "train",
                H5T_IEEE_F32LE,
                H5T_NATIVE_FLOAT,
                {n, d},
                x.data(),
                512);
    }
    // The one compressed chunk is the file's longest part: its middle.
    std::string bytes = read_bytes(path);
    for (size_t i = 0; i < 64; i++) {
        bytes[bytes.size() / 2 + i] ^= 0x5a;
    }
    write_bytes(path, bytes);
    const VectorFile file = open_vectors(path);
    std::vector<float> rows(n * d);
    CHECK_THAT(
            error_of([&] { file.read(0, n, rows.data()); }),
            ContainsSubstring("x.hdf5:train: cannot read rows 0 to 511"));
}

TEST_CASE("the caller's HDF5 error handler survives", "[datasets][hdf5]") {
    static int calls;
    calls = 0;
    H5E_auto2_t before = nullptr;
    void* before_data = nullptr;
    H5Eget_auto2(H5E_DEFAULT, &before, &before_data);
    const H5E_auto2_t counting = [](hid_t, void*) {
        calls++;
        return herr_t(0);
    };
    H5Eset_auto2(H5E_DEFAULT, counting, nullptr);
    const TempDir dir;
    write_bytes(dir / "x.hdf5", "no HDF5");
    open_error(dir / "x.hdf5", "train");
    CHECK(calls == 0);
    H5E_auto2_t after = nullptr;
    void* after_data = nullptr;
    H5Eget_auto2(H5E_DEFAULT, &after, &after_data);
    CHECK(after == counting);
    H5Eset_auto2(H5E_DEFAULT, before, before_data);
}
