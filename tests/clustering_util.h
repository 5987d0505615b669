#pragma once

// Stock FAISS beside ours, for the tests of clustering.

#include <faiss/IndexFlat.h>
#include <faiss/IndexPQ.h>
#include <faiss/IndexScalarQuantizer.h>

#include <faiss_flash/FlashClustering.h>
#include <tests/core_util.h>

namespace test {

using faiss_flash::idx_t;

// Fields that older FAISS does not have: each returns whether it is there.
#define TEST_SET_FIELD(field)                              \
    template <class P, class V>                            \
    auto set_##field(P& cp, V value, int)                  \
            ->decltype((void)(cp.field = value), bool()) { \
        cp.field = value;                                  \
        return true;                                       \
    }                                                      \
    template <class P, class V>                            \
    bool set_##field(P&, V, long) {                        \
        return false;                                      \
    }

TEST_SET_FIELD(early_stop_threshold)
TEST_SET_FIELD(use_faster_subsampling)
TEST_SET_FIELD(check_input_data_for_NaNs)

#undef TEST_SET_FIELD

/// FAISS's defaults, quiet and without an early stop.
inline faiss::ClusteringParameters parameters(int niter) {
    faiss::ClusteringParameters cp;
    cp.niter = niter;
    cp.min_points_per_centroid = 1; // no warning
    set_early_stop_threshold(cp, -1.0, 0);
    return cp;
}

/// What to train on: vectors or codes, weights, and centroids to start with.
struct Training {
    Rows rows;
    std::vector<float> weights; ///< empty: none
    std::vector<float> given;   ///< centroids
    const faiss::Index* codec = nullptr;
    std::vector<uint8_t> codes; ///< of rows, where codec is set

    const float* weights_or_null() const {
        return weights.empty() ? nullptr : weights.data();
    }
};

/// Runs a faiss::Clustering or one of ours, with its own train_encoded,
/// which is not virtual.
template <class C>
void train_on(C& clustering, const Training& t, faiss::Index& index) {
    clustering.centroids = t.given;
    if (t.codec) {
        clustering.train_encoded(
                t.rows.n, t.codes.data(), t.codec, index, t.weights_or_null());
    } else {
        clustering.train(t.rows.n, t.rows.x.data(), index, t.weights_or_null());
    }
}

/// The vectors of a flat index.
inline std::vector<float> vectors_of(const faiss::Index& index) {
    std::vector<float> x(index.ntotal * index.d);
    index.reconstruct_n(0, index.ntotal, x.data());
    return x;
}

inline bool all_finite(const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float value) {
        return std::isfinite(value);
    });
}

/// The first rows, every third of `far` moved away from everything.
inline Rows far_centroids(const Rows& rows, size_t k, size_t far) {
    Rows centroids{k, rows.d, {}};
    centroids.x.assign(rows.x.begin(), rows.x.begin() + k * rows.d);
    for (size_t c = 0; c < far; c++) {
        for (size_t j = 0; j < rows.d; j++) {
            centroids.x[3 * c * rows.d + j] = 5000.0f + 100 * c;
        }
    }
    return centroids;
}

/// 8 bits per dimension or a product quantizer, trained on the vectors.
inline const faiss::Index& codec(bool product) {
    static const auto make = [](faiss::Index&& index) -> faiss::Index&& {
        const Rows rows = real_rows(2000);
        index.train(rows.n, rows.x.data());
        return std::move(index);
    };
    static faiss::IndexScalarQuantizer sq(128, faiss::ScalarQuantizer::QT_8bit);
    static faiss::IndexPQ pq(128, 16, 4);
    static const bool trained = [] {
        make(std::move(sq));
        make(std::move(pq));
        return true;
    }();
    REQUIRE(trained);
    return product ? static_cast<faiss::Index&>(pq) : sq;
}

/// The vectors of `t` as codes.
inline void encode(Training& t, bool product) {
    t.codec = &codec(product);
    t.codes.resize(t.rows.n * t.codec->sa_code_size());
    t.codec->sa_encode(t.rows.n, t.rows.x.data(), t.codes.data());
}

} // namespace test
