// The fvecs and fbin families against files made here.

#include <datasets/vector_file.h>
#include <sys/stat.h>
#include <tests/catch_compat.h>
#include <tests/datasets_util.h>

#include <cmath>

using namespace faiss_flash;
using namespace test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// Writes n x d values, and reads them back in one piece, in uneven pieces
/// and at the edges.
template <typename T>
void check_format(
        const std::string& path,
        const std::vector<T>& x,
        size_t d,
        const std::string& bytes,
        ElementType element) {
    write_bytes(path, bytes);
    const VectorFile file = open_vectors(path);
    const size_t n = x.size() / d;
    REQUIRE(file.n() == n);
    REQUIRE(file.d() == d);
    CHECK(file.element() == element);
    CHECK(file.name() == path);

    for (size_t step : {n, size_t(1), size_t(3)}) {
        for (size_t i0 = 0; i0 < n; i0 += step) {
            const size_t count = std::min(step, n - i0);
            // One value more, to see that nothing is written behind the end.
            std::vector<float> rows(count * d + 1, -7.5f);
            file.read(i0, count, rows.data());
            for (size_t j = 0; j < count * d; j++) {
                REQUIRE(rows[j] == static_cast<float>(x[i0 * d + j]));
            }
            CHECK(rows.back() == -7.5f);
        }
    }
    file.read(n, 0, nullptr);
    float unused = 0;
    CHECK_THAT(
            error_of([&] { file.read(n, 1, &unused); }),
            ContainsSubstring(path));
    CHECK_THAT(
            error_of([&] { file.read(1, n, &unused); }),
            ContainsSubstring("it has " + std::to_string(n)));
    // i0 + count overflows.
    CHECK_THAT(
            error_of([&] { file.read(2, SIZE_MAX, &unused); }),
            ContainsSubstring("rows from row 2 wanted"));
}

template <typename T>
void check_both(
        const std::string& vecs,
        const std::string& bin,
        ElementType element) {
    const TempDir dir;
    for (size_t d : {1, 3, 7, 128}) {
        for (size_t n : {1, 2, 10}) {
            CAPTURE(d, n);
            const auto x = random_values<T>(n * d, 100 * d + n);
            if (!vecs.empty()) {
                check_format(
                        dir / ("x" + vecs),
                        x,
                        d,
                        vecs_bytes(x, int32_t(d)),
                        element);
            }
            check_format(
                    dir / ("x" + bin),
                    x,
                    d,
                    bin_bytes(x, uint32_t(d)),
                    element);
        }
    }
}

std::string open_error(const std::string& path) {
    return error_of([&] { open_vectors(path); });
}

} // namespace

TEST_CASE("fvecs and fbin give the floats stored", "[datasets][sanitize]") {
    check_both<float>(".fvecs", ".fbin", ElementType::float32);
}

TEST_CASE("bvecs and u8bin give bytes as floats", "[datasets]") {
    check_both<uint8_t>(".bvecs", ".u8bin", ElementType::uint8);
}

TEST_CASE("i8bin gives signed bytes as floats", "[datasets]") {
    check_both<int8_t>("", ".i8bin", ElementType::int8);
}

TEST_CASE("ivecs and ibin give ids, bounded", "[datasets]") {
    const TempDir dir;
    const size_t n = 5, k = 3;
    const std::vector<int32_t> ids{
            4, 0, 7, 1, 2, 3, 9, 8, 7, 0, 0, 0, 2147483647, 5, 6};
    const auto distances = random_values<float>(n * k, 1);
    write_bytes(dir / "a.ivecs", vecs_bytes(ids, k));
    write_bytes(dir / "b.ibin", bin_bytes(ids, k));
    // Ids and then distances, as billion-scale sets publish them.
    write_bytes(dir / "c.ibin", bin_bytes(ids, k) + bytes_of(distances));
    for (const char* name : {"a.ivecs", "b.ibin", "c.ibin"}) {
        CAPTURE(name);
        const IdFile file = open_ids(dir / name);
        REQUIRE(file.n() == n);
        REQUIRE(file.k() == k);
        std::vector<int64_t> read(n * k);
        file.read(0, n, int64_t(1) << 31, read.data());
        CHECK(read == std::vector<int64_t>(ids.begin(), ids.end()));
        file.read(1, 2, 10, read.data());
        CHECK(read[0] == 1);
        CHECK(read[5] == 7);
        // Row 2 starts with id 9.
        CHECK_THAT(
                error_of([&] { file.read(1, 2, 9, read.data()); }),
                ContainsSubstring("row 2, column 0 holds id 9") &&
                        ContainsSubstring("between 0 and 8"));
        CHECK_THAT(
                error_of([&] { file.read(5, 1, 9, read.data()); }),
                ContainsSubstring("it has 5"));
    }
    write_bytes(dir / "n.ibin", bin_bytes(std::vector<int32_t>{0, -1}, 2));
    std::vector<int64_t> two(2);
    CHECK_THAT(
            error_of([&] { open_ids(dir / "n.ibin").read(0, 1, 9, &two[0]); }),
            ContainsSubstring("column 1 holds id -1"));
}

TEST_CASE("extensions say what a file holds", "[datasets]") {
    const TempDir dir;
    for (const char* name : {"x.txt", "x", "x.ivecs", "x.ibin", "x.FVECS"}) {
        write_bytes(dir / name, "        ");
        CHECK_THAT(
                open_error(dir / name),
                ContainsSubstring(name) &&
                        ContainsSubstring("unknown extension"));
    }
    write_bytes(dir / "x.fbin", "        ");
    CHECK_THAT(
            error_of([&] { open_ids(dir / "x.fbin"); }),
            ContainsSubstring("unknown extension for ids"));
    // The dot of a folder is not an extension.
    CHECK_THAT(
            open_error("no.fbin/file"), ContainsSubstring("unknown extension"));
}

TEST_CASE("what is not a file is refused", "[datasets]") {
    const TempDir dir;
    CHECK_THAT(
            open_error(dir / "none.fbin"),
            ContainsSubstring("none.fbin: cannot open: No such file"));
    fs::create_directory(dir / "folder.fbin");
    CHECK_THAT(
            open_error(dir / "folder.fbin"),
            ContainsSubstring("not a regular file"));
    REQUIRE(mkfifo((dir / "pipe.fvecs").c_str(), 0600) == 0);
    CHECK_THAT(
            open_error(dir / "pipe.fvecs"),
            ContainsSubstring("not a regular file"));
    write_bytes(dir / "empty.fvecs", "");
    CHECK_THAT(
            open_error(dir / "empty.fvecs"),
            ContainsSubstring("the file is empty"));
}

TEST_CASE("vecs files cut or mixed up are refused", "[datasets][sanitize]") {
    const TempDir dir;
    const auto x = random_values<float>(4 * 6, 3);
    const std::string bytes = vecs_bytes(x, 6);
    const std::string path = dir / "x.fvecs";
    // Every length but whole rows.
    for (size_t size = 1; size < bytes.size(); size++) {
        if (size % 28 != 0) {
            write_bytes(path, bytes.substr(0, size));
            CHECK_THAT(open_error(path), ContainsSubstring("truncated"));
        }
    }
    for (int32_t d : {0, -1, INT32_MIN}) {
        write_bytes(path, bytes_of(std::vector<int32_t>{d}) + bytes);
        CHECK_THAT(
                open_error(path),
                ContainsSubstring("dimension " + std::to_string(d)));
    }
    write_bytes(path, bytes_of(std::vector<int32_t>{INT32_MAX}) + bytes);
    CHECK_THAT(open_error(path), ContainsSubstring("dimension 2147483647"));

    // A row of another dimension in the middle: named when it is read.
    std::string mixed = bytes;
    mixed[2 * 28] = 5;
    write_bytes(path, mixed);
    const VectorFile file = open_vectors(path);
    std::vector<float> rows(4 * 6);
    file.read(0, 2, rows.data());
    CHECK_THAT(
            error_of([&] { file.read(1, 3, rows.data()); }),
            ContainsSubstring("row 2 has dimension 5, row 0 has 6"));
}

TEST_CASE("bin files with hostile headers are refused", "[datasets]") {
    const TempDir dir;
    const std::string path = dir / "x.fbin";
    const std::string body(8 * 4, '\1');
    const auto with = [&](uint32_t n, uint32_t d) {
        write_bytes(path, bytes_of(std::vector<uint32_t>{n, d}) + body);
    };
    with(4, 2);
    CHECK(open_vectors(path).n() == 4);
    const std::vector<std::pair<uint32_t, uint32_t>> wrong{
            {5, 2},
            {3, 2},
            {4, 3},
            {8, 2},
            {UINT32_MAX, UINT32_MAX},
            {1u << 31, 1u << 31},
            // n d 4 is 32 modulo 2^64, 2^32 and so on.
            {1u << 31, 1u << 30},
            {(1u << 30) + 4, 2},
            {1u << 31, 2},
            {2, 1u << 30},
    };
    for (const auto& [n, d] : wrong) {
        with(n, d);
        CHECK_THAT(
                open_error(path),
                ContainsSubstring(
                        "header says " + std::to_string(n) + " rows") &&
                        ContainsSubstring("the file has 32 bytes"));
    }
    with(0, 2);
    CHECK_THAT(open_error(path), ContainsSubstring("at least 1"));
    with(2, 0);
    CHECK_THAT(open_error(path), ContainsSubstring("at least 1"));
    for (size_t size = 1; size < 8; size++) {
        write_bytes(path, body.substr(0, size));
        CHECK_THAT(open_error(path), ContainsSubstring("truncated"));
    }
    // Ids and distances only count for .ibin.
    write_bytes(path, bytes_of(std::vector<uint32_t>{4, 2}) + body + body);
    CHECK_THAT(open_error(path), ContainsSubstring("has 64 bytes"));
}

TEST_CASE("a file cut short after opening is a short read", "[datasets]") {
    const TempDir dir;
    // Several pages, so that mapped pages really go away.
    const auto x = random_values<float>(4096 * 8, 5);
    write_bytes(dir / "x.fbin", bin_bytes(x, 8));
    const VectorFile file = open_vectors(dir / "x.fbin");
    fs::resize_file(dir / "x.fbin", 5000);
    std::vector<float> rows(4096 * 8);
    CHECK_THAT(
            error_of([&] { file.read(0, 4096, rows.data()); }),
            ContainsSubstring("short read") &&
                    ContainsSubstring("the file has 5000"));
    file.read(0, 100, rows.data());
    CHECK(rows[799] == x[799]);
}

TEST_CASE("normalized rows have length one", "[datasets]") {
    const TempDir dir;
    auto x = random_values<float>(6 * 5, 9);
    x[5] = 3e38f; // its square overflows a float
    for (size_t j = 0; j < 5; j++) {
        x[3 * 5 + j] = 0;
    }
    x[4 * 5 + 2] = NAN;
    x[5 * 5 + 1] = INFINITY;
    write_bytes(dir / "x.fvecs", vecs_bytes(x, 5));
    const VectorFile file = open_vectors(dir / "x.fvecs").normalized();
    REQUIRE(file.is_normalized());
    std::vector<float> rows(3 * 5);
    file.read(0, 3, rows.data());
    for (size_t i = 0; i < 3; i++) {
        double norm_sq = 0, dot = 0, given_sq = 0;
        for (size_t j = 0; j < 5; j++) {
            const double given = x[i * 5 + j], got = rows[i * 5 + j];
            norm_sq += got * got;
            dot += got * given;
            given_sq += given * given;
        }
        CHECK(std::abs(norm_sq - 1) < 1e-6);
        CHECK(std::abs(dot / std::sqrt(given_sq) - 1) < 1e-6);
    }
    CHECK_THAT(
            error_of([&] { file.read(2, 2, rows.data()); }),
            ContainsSubstring("row 3 is all zeros"));
    CHECK_THAT(
            error_of([&] { file.read(4, 1, rows.data()); }),
            ContainsSubstring("row 4 holds a NaN or an infinity"));
    const VectorFile keep =
            open_vectors(dir / "x.fvecs").normalized(ZeroRow::keep);
    keep.read(3, 1, rows.data());
    CHECK(rows[0] == 0);
    CHECK(rows[4] == 0);
    CHECK_THAT(
            error_of([&] { keep.read(3, 3, rows.data()); }),
            ContainsSubstring("row 4 holds"));
}

TEST_CASE("first_rows cuts a file", "[datasets]") {
    const TempDir dir;
    write_bytes(dir / "x.u8bin", bin_bytes(random_values<uint8_t>(12, 1), 3));
    const VectorFile file = open_vectors(dir / "x.u8bin").first_rows(3);
    CHECK(file.n() == 3);
    float rows[9];
    file.read(0, 3, rows);
    CHECK_THAT(
            error_of([&] { file.read(3, 1, rows); }),
            ContainsSubstring("it has 3"));
    CHECK_THAT(
            error_of([&] { file.first_rows(4); }),
            ContainsSubstring("between 1 and 3"));
    CHECK_THAT(
            error_of([&] { file.first_rows(0); }),
            ContainsSubstring("between 1 and 3"));
}
