// Trainings of mixtures on the CUDA engine, from the first k-means pass to
// the last EM pass. Cases that need a device say so where there is none, and
// CTest then counts them as skipped.

#include <cmath>
#include <functional>

#include <faiss/IndexFlat.h>

#include <faiss_flash/cuda/device_source.h>
#include <tests/cuda_util.h>
#include <tests/device_rows.h>
#include <tests/gmm_util.h>

using namespace test;
using faiss_flash::array_source;
using faiss_flash::EngineOptions;
using faiss_flash::VectorSource;

namespace {

/// All that a training leaves, to the last bit.
bool same_training(const GMMClustering& a, const GMMClustering& b) {
    if (a.em_stats.size() != b.em_stats.size() ||
        a.iteration_stats.size() != b.iteration_stats.size()) {
        return false;
    }
    for (size_t i = 0; i < a.em_stats.size(); i++) {
        const EMStats &s = a.em_stats[i], &t = b.em_stats[i];
        if (s.log_likelihood != t.log_likelihood ||
            s.entries_per_vector != t.entries_per_vector ||
            s.dropped_mass != t.dropped_mass || s.nreseed != t.nreseed) {
            return false;
        }
    }
    for (size_t i = 0; i < a.iteration_stats.size(); i++) {
        if (a.iteration_stats[i].obj != b.iteration_stats[i].obj) {
            return false;
        }
    }
    return a.centroids == b.centroids && a.variances == b.variances &&
            a.mixing_weights == b.mixing_weights;
}

/// The mixture that clusters of rows are read as, around the first k rows.
Model first_rows_model(const Rows& x, size_t k) {
    Model model;
    model.k = k;
    model.d = x.d;
    model.means.assign(x.x.begin(), x.x.begin() + k * x.d);
    model.weights.assign(k, 1.0f / k);
    model.variances.assign(k, 400.0f);
    return model;
}

/// What a k-means pass and two soft passes over the source leave behind.
std::vector<Statistics> three_passes(
        const Model& model,
        const VectorSource& source,
        const EngineOptions& options = {}) {
    const auto set = cuda_engine()->open(source, options);
    std::vector<Statistics> stats(3);
    Model centroids = model;
    centroids.variances.clear();
    centroids.weights.clear();
    set->accumulate(centroids, Pass::hard, stats[0]);
    set->accumulate(model, Pass::soft, stats[1]);
    set->accumulate(model, Pass::soft, stats[2]);
    return stats;
}

void check_same(
        const std::vector<Statistics>& a,
        const std::vector<Statistics>& b) {
    REQUIRE(a.size() == b.size());
    for (size_t i = 0; i < a.size(); i++) {
        INFO("pass " << i);
        CHECK(same_bytes(a[i], b[i]));
    }
}

} // namespace

TEST_CASE("cuda: a mixture's training is the same 20 times", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Rows x = real_rows(8000);
    for (const Covariance covariance :
         {Covariance::spherical, Covariance::diag}) {
        auto fit = [&] {
            GMMClustering clustering((int)x.d, 100);
            clustering.engine = "cuda";
            clustering.gmm.warm_start_niter = 4;
            clustering.gmm.em_niter = 6;
            clustering.gmm.em_tolerance = 0;
            clustering.gmm.covariance = covariance;
            faiss::IndexFlatL2 index(x.d);
            clustering.train(x.n, x.x.data(), index);
            return clustering;
        };
        const GMMClustering first = fit();
        for (int run = 0; run < 20; run++) {
            REQUIRE(same_training(first, fit()));
        }
    }
}

TEST_CASE("cuda: mixtures of vectors on the device, of every type", "[cuda]") {
    if (no_device()) {
        return;
    }
    // several blocks of rows, so that streaming has something to cut
    const Rows x = whole(normal_rows(300000, 20, 5, 40, 128));
    const size_t k = 70;
    Model spherical = first_rows_model(x, k), diagonal = spherical;
    diagonal.make_diagonal();
    for (size_t i = 0; i < diagonal.variances.size(); i++) {
        diagonal.variances[i] *= 1 + 0.1f * (i % 7);
    }
    for (const Model& model : {spherical, diagonal}) {
        const auto expected = three_passes(
                model, *array_source(x.n, x.d, x.x.data(), nullptr));
        for (const VectorType type : all_vector_types) {
            const auto device = on_device(x, type);
            const auto source = faiss_flash::device_source(
                    "test", x.n, x.d, {device.get(), type}, nullptr, nullptr);
            for (const size_t bytes : {size_t(0), size_t(150) << 20}) {
                INFO("diagonal " << model.is_diagonal() << ", type "
                                 << (int)type << ", " << bytes << " bytes");
                EngineOptions options;
                options.max_device_bytes = bytes;
                check_same(three_passes(model, *source, options), expected);
            }
        }
    }
}

TEST_CASE(
        "cuda: whatever allocation fails in a mixture's training, its set "
        "goes on",
        "[cuda]") {
    if (no_device()) {
        return;
    }
    const Rows x = whole(normal_rows(300000, 20, 7, 40, 128));
    const Model spherical = first_rows_model(x, 70);
    Model diagonal = spherical;
    diagonal.make_diagonal();
    const auto device = on_device(x, VectorType::uint8);
    const auto from_host = array_source(x.n, x.d, x.x.data(), nullptr);
    const auto from_device = faiss_flash::device_source(
            "test",
            x.n,
            x.d,
            {device.get(), VectorType::uint8},
            nullptr,
            nullptr);
    struct Case {
        const Model& model;
        const VectorSource& source;
        size_t bytes;
    };
    for (const Case& c :
         {Case{spherical, *from_host, 0},
          Case{spherical, *from_host, size_t(130) << 20},
          Case{spherical, *from_device, 0},
          Case{diagonal, *from_host, 0}}) {
        EngineOptions options;
        options.max_device_bytes = c.bytes;
        const auto set = cuda_engine()->open(c.source, options);
        auto pass = [&](Pass kind) {
            Model model = c.model;
            if (kind == Pass::hard) {
                model.variances.clear();
                model.weights.clear();
            }
            Statistics stats;
            set->accumulate(model, kind, stats);
            return stats;
        };
        const auto expected = three_passes(c.model, c.source, options);
        // each time a set of its own, and then the same one once more
        fail_each_allocation([&] {
            check_same(three_passes(c.model, c.source, options), expected);
        });
        // a set that has done k-means passes
        fail_each_allocation([&] {
            CHECK(same_bytes(pass(Pass::hard), expected[0]));
            CHECK(same_bytes(pass(Pass::soft), expected[1]));
        });
    }
}

TEST_CASE("cuda: EM never falls on awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    struct Case {
        const char* name;
        bool on_floor; ///< vectors lie on means, but for their rounding
        std::function<void(Rows&)> change;
    };
    const Case cases[] = {
            {"far outliers, in whose densities everything underflows",
             false,
             [](Rows& x) {
                 for (size_t i = 0; i < x.n; i += 97) {
                     for (size_t j = 0; j < x.d; j++) {
                         x.x[i * x.d + j] *= i % 2 ? 1e5f : 300.0f;
                     }
                 }
             }},
            {"vectors that are all one of nine",
             true,
             [](Rows& x) {
                 for (size_t i = 9; i < x.n; i++) {
                     std::copy_n(x.row(i % 9), x.d, &x.x[i * x.d]);
                 }
             }},
            {"half of the vectors equal",
             false,
             [](Rows& x) {
                 for (size_t i = 2; i < x.n; i += 2) {
                     std::copy_n(x.row(0), x.d, &x.x[i * x.d]);
                 }
             }},
            {"a far offset",
             false,
             [](Rows& x) {
                 for (float& v : x.x) {
                     v += 2000;
                 }
             }},
    };
    for (const Case& c : cases) {
        Rows x = blob_rows(3000, 24, 40, 5, 301);
        c.change(x);
        for (const Covariance covariance : all_covariances) {
            for (const size_t k : {1, 45}) {
                INFO(c.name << ", " << to_string(covariance) << ", k = " << k);
                GMMClustering clustering((int)x.d, (int)k);
                clustering.engine = "cuda";
                clustering.max_points_per_centroid = x.n;
                clustering.gmm.warm_start_niter = 3;
                clustering.gmm.em_niter = 12;
                clustering.gmm.em_tolerance = 0;
                clustering.gmm.covariance = covariance;
                faiss::IndexFlatL2 index(x.d);
                clustering.train(x.n, x.x.data(), index);
                check_sound(clustering);
                // a mean's rounding, in deviations of the smallest variance
                const double off = std::ldexp(20, -24) /
                        std::sqrt(*std::min_element(
                                clustering.variances.begin(),
                                clustering.variances.end()));
                const double tolerance = likelihood_tolerance(x.d) +
                        (c.on_floor ? x.d * off * off : 0);
                const auto& stats = clustering.em_stats;
                for (size_t i = 1; i < stats.size(); i++) {
                    const double before = stats[i - 1].log_likelihood;
                    const double fall = before - stats[i].log_likelihood;
                    INFO("pass " << i << ": " << before << " falls by " << fall
                                 << ", allowed " << tolerance);
                    CHECK((stats[i - 1].nreseed > 0 ||
                           fall <= tolerance +
                                           std::ldexp(std::abs(before), -22)));
                }
            }
        }
    }
}
