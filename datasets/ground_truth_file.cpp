#include <datasets/ground_truth_file.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <datasets/hdf5_handle.h>
#include <datasets/whole_file.h>
#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace {

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() &&
            text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Creates an (n, d) dataset and returns it open.
Hdf5Handle create_matrix(
        hid_t file,
        const char* dataset,
        hid_t stored,
        size_t n,
        size_t d) {
    const hsize_t shape[2] = {n, d};
    const Hdf5Handle space(H5Screate_simple(2, shape, nullptr), H5Sclose);
    Hdf5Handle data(
            H5Dcreate2(
                    file,
                    dataset,
                    stored,
                    space.get(),
                    H5P_DEFAULT,
                    H5P_DEFAULT,
                    H5P_DEFAULT),
            H5Dclose);
    FAISS_THROW_IF_NOT_FMT(
            bool(data),
            "cannot create dataset '%s': %s",
            dataset,
            hdf5_error().c_str());
    return data;
}

/// Writes rows [i0, i0 + n) of an open (., d) dataset.
void write_rows(
        const Hdf5Handle& data,
        hid_t given,
        size_t i0,
        size_t n,
        size_t d,
        const void* values) {
    const hsize_t start[2] = {i0, 0}, size[2] = {n, d};
    const Hdf5Handle to(H5Dget_space(data.get()), H5Sclose);
    const Hdf5Handle from(H5Screate_simple(2, size, nullptr), H5Sclose);
    H5Sselect_hyperslab(
            to.get(), H5S_SELECT_SET, start, nullptr, size, nullptr);
    FAISS_THROW_IF_NOT_FMT(
            H5Dwrite(
                    data.get(),
                    given,
                    from.get(),
                    to.get(),
                    H5P_DEFAULT,
                    values) >= 0,
            "cannot write: %s",
            hdf5_error().c_str());
}

void copy_vectors(
        hid_t file,
        const char* dataset,
        const VectorFile& from,
        const std::function<void(size_t)>& progress) {
    hid_t stored = H5T_IEEE_F32LE;
    if (from.element() == ElementType::uint8) {
        stored = H5T_STD_U8LE;
    } else if (from.element() == ElementType::int8) {
        stored = H5T_STD_I8LE;
    }
    const size_t n = from.n(), d = from.d();
    Hdf5Handle data = create_matrix(file, dataset, stored, n, d);
    const size_t step = std::max<size_t>(1, (size_t(4) << 20) / d);
    std::vector<float> rows;
    for (size_t i0 = 0; i0 < n; i0 += step) {
        const size_t count = std::min(step, n - i0);
        rows.resize(count * d);
        from.read(i0, count, rows.data());
        write_rows(data, H5T_NATIVE_FLOAT, i0, count, d, rows.data());
        if (progress) {
            progress(i0 + count);
        }
    }
    FAISS_THROW_IF_NOT_FMT(
            data.reset(), "cannot write: %s", hdf5_error().c_str());
}

void write_attribute(hid_t file, const char* name, const char* text) {
    const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type.get(), H5T_VARIABLE);
    const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    const Hdf5Handle attribute(
            H5Acreate2(
                    file,
                    name,
                    type.get(),
                    space.get(),
                    H5P_DEFAULT,
                    H5P_DEFAULT),
            H5Aclose);
    FAISS_THROW_IF_NOT_FMT(
            H5Awrite(attribute.get(), type.get(), &text) >= 0,
            "cannot write attribute '%s': %s",
            name,
            hdf5_error().c_str());
}

} // namespace

void write_id_file(const std::string& path, const GroundTruth& truth) {
    const bool vecs = ends_with(path, ".ivecs");
    FAISS_THROW_IF_NOT_FMT(
            vecs || ends_with(path, ".ibin"),
            "%s: unknown extension for ids, must be .ivecs or .ibin",
            path.c_str());
    const int64_t largest = truth.ids.empty()
            ? 0
            : *std::max_element(truth.ids.begin(), truth.ids.end());
    FAISS_THROW_IF_NOT_FMT(
            largest <= std::numeric_limits<int32_t>::max(),
            "%s: id %lld does not fit 32 bits",
            path.c_str(),
            static_cast<long long>(largest));
    std::vector<int32_t> words;
    words.reserve(2 + truth.nq * (truth.k + 1));
    if (!vecs) {
        words.push_back(static_cast<int32_t>(truth.nq));
        words.push_back(static_cast<int32_t>(truth.k));
    }
    for (size_t q = 0; q < truth.nq; q++) {
        if (vecs) {
            words.push_back(static_cast<int32_t>(truth.k));
        }
        const auto row = truth.ids.begin() + q * truth.k;
        words.insert(words.end(), row, row + truth.k);
    }
    WholeFile file(path);
    file.write(words.data(), words.size() * sizeof(words[0]));
    file.commit();
}

void write_hdf5_dataset(
        const std::string& path,
        const VectorFile& base,
        const VectorFile& queries,
        const GroundTruth& truth,
        DatasetMetric metric,
        const std::function<void(size_t)>& progress) {
    WholeFile whole(path);
    const Hdf5Section section;
    Hdf5Handle file(
            H5Fcreate(
                    whole.temporary().c_str(),
                    H5F_ACC_TRUNC,
                    H5P_DEFAULT,
                    H5P_DEFAULT),
            H5Fclose);
    FAISS_THROW_IF_NOT_FMT(
            bool(file),
            "%s: cannot write: %s",
            path.c_str(),
            hdf5_error().c_str());
    const bool l2 = metric == DatasetMetric::L2;
    write_attribute(file.get(), "distance", l2 ? "euclidean" : "angular");
    copy_vectors(file.get(), "train", base, progress);
    copy_vectors(file.get(), "test", queries, {});

    const size_t nq = truth.nq, k = truth.k;
    const bool small = base.n() <= size_t(1) << 31;
    Hdf5Handle neighbors = create_matrix(
            file.get(),
            "neighbors",
            small ? H5T_STD_I32LE : H5T_STD_I64LE,
            nq,
            k);
    write_rows(neighbors, H5T_NATIVE_INT64, 0, nq, k, truth.ids.data());

    std::vector<double> dist = truth.dist;
    if (l2) {
        for (double& value : dist) {
            value = std::sqrt(value);
        }
    }
    Hdf5Handle distances =
            create_matrix(file.get(), "distances", H5T_IEEE_F32LE, nq, k);
    write_rows(distances, H5T_NATIVE_DOUBLE, 0, nq, k, dist.data());

    bool closed = neighbors.reset();
    closed = distances.reset() && closed;
    closed = file.reset() && closed;
    FAISS_THROW_IF_NOT_FMT(
            closed, "%s: cannot write: %s", path.c_str(), hdf5_error().c_str());
    whole.commit();
}

} // namespace faiss_flash
