#include <datasets/dataset.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <utility>

#include <datasets/hdf5_rows.h>
#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace fs = std::filesystem;

namespace {

/// Reads what a Dataset keeps in memory and checks the parts against each
/// other; `ids` may be nullptr.
Dataset assemble(
        std::string name,
        DatasetMetric metric,
        const VectorFile& base,
        const VectorFile& queries,
        const IdFile* ids) {
    FAISS_THROW_IF_NOT_FMT(
            queries.d() == base.d(),
            "%s: dimension %zu, but %s has dimension %zu",
            queries.name().c_str(),
            queries.d(),
            base.name().c_str(),
            base.d());
    const bool angular = metric == DatasetMetric::Angular;
    Dataset set{
            std::move(name),
            metric,
            angular ? base.normalized(ZeroRow::keep) : base,
            queries.n(),
            {},
            0,
            {}};
    set.queries.resize(set.nq * base.d());
    (angular ? queries.normalized() : queries)
            .read(0, set.nq, set.queries.data());
    if (ids) {
        FAISS_THROW_IF_NOT_FMT(
                ids->n() == set.nq,
                "%s: ground truth of %zu queries, but %s has %zu",
                ids->name().c_str(),
                ids->n(),
                queries.name().c_str(),
                set.nq);
        set.gtk = ids->k();
        set.ground_truth.resize(set.nq * set.gtk);
        ids->read(
                0,
                set.nq,
                static_cast<int64_t>(base.n()),
                set.ground_truth.data());
    }
    return set;
}

Dataset open_hdf5_dataset(const std::string& path) {
    const std::string distance = read_hdf5_attribute(path, "distance");
    FAISS_THROW_IF_NOT_FMT(
            distance == "euclidean" || distance == "angular",
            "%s: attribute 'distance' is '%s', must be euclidean or angular",
            path.c_str(),
            distance.c_str());
    const VectorFile base = open_vectors(path, "train");
    const VectorFile queries = open_vectors(path, "test");
    const std::string name = fs::path(path).stem().string();
    const DatasetMetric metric = parse_metric(distance);
    if (!hdf5_has_dataset(path, "neighbors")) {
        return assemble(name, metric, base, queries, nullptr);
    }
    const IdFile ids = open_ids(path, "neighbors");
    return assemble(name, metric, base, queries, &ids);
}

/// Lower-case words of a file name, split at everything but letters and
/// digits: sift_base.fvecs -> sift, base, fvecs.
std::vector<std::string> words_of(const std::string& text) {
    std::vector<std::string> words(1);
    for (unsigned char c : text) {
        if (std::isalnum(c)) {
            words.back() += static_cast<char>(std::tolower(c));
        } else if (!words.back().empty()) {
            words.emplace_back();
        }
    }
    return words;
}

struct Part {
    const char* what;
    std::vector<std::string> words;
    bool ids;
};

/// The one file among `files` that is this part; "" if there is none.
std::string find_part(
        const Part& part,
        const std::vector<fs::path>& files,
        const std::string& where) {
    std::string found;
    for (const fs::path& file : files) {
        const std::string path = file.string();
        if (is_hdf5_file(path) ||
            !(part.ids ? is_id_file(path) : is_vector_file(path))) {
            continue;
        }
        const auto words = words_of(file.filename().string());
        const bool match = std::any_of(
                words.begin(), words.end(), [&](const std::string& word) {
                    return std::count(
                                   part.words.begin(), part.words.end(), word) >
                            0;
                });
        if (!match) {
            continue;
        }
        FAISS_THROW_IF_NOT_FMT(
                found.empty(),
                "%s: two %s files, %s and %s; keep one, or give a prefix "
                "that only one of them has",
                where.c_str(),
                part.what,
                found.c_str(),
                path.c_str());
        found = path;
    }
    return found;
}

Dataset open_dataset_parts(const std::string& path, DatasetMetric metric) {
    fs::path folder = path, prefix;
    if (!fs::is_directory(folder)) {
        prefix = folder.filename();
        folder = folder.parent_path();
    }
    if (folder.empty()) {
        folder = ".";
    }
    std::error_code error;
    std::vector<fs::path> files;
    for (fs::directory_iterator it(folder, error), end; !error && it != end;
         it.increment(error)) {
        const std::string file = it->path().filename().string();
        if (file.compare(0, prefix.string().size(), prefix.string()) == 0) {
            files.push_back(it->path());
        }
    }
    FAISS_THROW_IF_NOT_FMT(
            !error,
            "%s: no such data set: %s",
            path.c_str(),
            error.message().c_str());
    FAISS_THROW_IF_NOT_FMT(
            !files.empty(),
            "%s: no such data set: neither a file, nor a folder, nor the "
            "beginning of file names",
            path.c_str());
    std::sort(files.begin(), files.end());

    const std::string base = find_part({"base", {"base"}, false}, files, path);
    const std::string query =
            find_part({"query", {"query", "queries"}, false}, files, path);
    const std::string ids = find_part(
            {"ground-truth", {"groundtruth", "gt"}, true}, files, path);
    FAISS_THROW_IF_NOT_FMT(
            !base.empty() && !query.empty(),
            "%s: no %s file (a name with the word '%s' and the extension "
            ".fvecs, .bvecs, .fbin, .u8bin or .i8bin)",
            path.c_str(),
            base.empty() ? "base" : "query",
            base.empty() ? "base" : "query");

    // "data/deep10m/" and "data/deep10m" are both called deep10m.
    fs::path named =
            prefix.empty() ? fs::absolute(folder).lexically_normal() : prefix;
    if (!named.has_filename()) {
        named = named.parent_path();
    }
    const std::string name = named.filename().string();
    const VectorFile base_file = open_vectors(base);
    const VectorFile query_file = open_vectors(query);
    if (ids.empty()) {
        return assemble(name, metric, base_file, query_file, nullptr);
    }
    const IdFile id_file = open_ids(ids);
    return assemble(name, metric, base_file, query_file, &id_file);
}

} // namespace

const char* metric_name(DatasetMetric metric) {
    return metric == DatasetMetric::L2 ? "l2" : "angular";
}

DatasetMetric parse_metric(const std::string& text) {
    if (text == "l2" || text == "euclidean") {
        return DatasetMetric::L2;
    }
    FAISS_THROW_IF_NOT_FMT(
            text == "angular" || text == "cosine",
            "metric is '%s', must be l2 or angular",
            text.c_str());
    return DatasetMetric::Angular;
}

Dataset open_dataset(const std::string& path, DatasetMetric metric) {
    if (is_hdf5_file(path)) {
        return open_hdf5_dataset(path);
    }
    FAISS_THROW_IF_NOT_FMT(
            !fs::is_regular_file(path),
            "%s: must be an .hdf5 file, a folder or the prefix of base, query "
            "and ground-truth files",
            path.c_str());
    return open_dataset_parts(path, metric);
}

} // namespace faiss_flash
