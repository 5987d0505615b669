#pragma once

// Files of small indexes for the tests of reading and writing them.

#include <tests/index_util.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include <faiss_flash/flash_index_io.h>

namespace test {

namespace fs = std::filesystem;

/// The shape of make_index().
constexpr size_t file_d = 8, file_nlist = 7, file_nb = 400;

/// A folder that goes away with the test.
struct Folder {
    std::string path;
    explicit Folder(const fs::path& parent = fs::temp_directory_path()) {
        path = (parent / "flash_io_XXXXXX").string();
        REQUIRE(mkdtemp(&path[0]) != nullptr);
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    std::string file(const std::string& name = "index") const {
        return path + "/" + name;
    }
    size_t count() const {
        return std::distance(
                fs::directory_iterator(path), fs::directory_iterator());
    }
};

inline std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
}

inline void put_bytes(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// An index with copies, trained as a mixture.
inline Flash make_index(Codec codec, faiss::Index* quantizer, int seed = 1) {
    const size_t d = file_d, nb = file_nb, nlist = file_nlist;
    const std::vector<float> x = clustered(nb, d, seed);
    Flash flash = make_flash(codec, quantizer, nlist);
    flash.options->policy = AssignmentPolicy::top_m(2);
    flash.options->gmm.em_niter = 5;
    flash->train(nb, x.data());
    flash->add(nb, x.data());
    flash->nprobe = 3;
    return flash;
}

template <class Index>
std::unique_ptr<Index> read_as(const std::string& path) {
    std::unique_ptr<faiss::Index> index(faiss_flash::read_index(path.c_str()));
    REQUIRE(dynamic_cast<Index*>(index.get()));
    return std::unique_ptr<Index>(dynamic_cast<Index*>(index.release()));
}

inline void check_unreadable(
        const std::string& path,
        const std::vector<std::string>& parts = {}) {
    std::vector<std::string> all = parts;
    all.push_back(path);
    check_throws([&] { delete faiss_flash::read_index(path.c_str()); }, all);
}

} // namespace test
