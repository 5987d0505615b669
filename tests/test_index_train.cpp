// Training the coarse quantizer of an index, and the quantizer that knows
// its mixture.

#include <tests/index_util.h>

#include <cmath>
#include <set>

#include <faiss/IndexHNSW.h>

#include <faiss_flash/FlashClustering.h>
#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/engine/engine.h>

using namespace faiss_flash;
using namespace test;

namespace {

const size_t d = 8, nlist = 10, nb = 800;

std::vector<float> vectors_of(const faiss::Index& index) {
    std::vector<float> x(index.ntotal * index.d);
    index.reconstruct_n(0, index.ntotal, x.data());
    return x;
}

double sum(const std::vector<float>& values) {
    double total = 0;
    for (float value : values) {
        total += value;
    }
    return total;
}

} // namespace

TEST_CASE("train goes through our clusterings", "[sanitize]") {
    const auto metric = GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
    const Trainer trainer = GENERATE(Trainer::kmeans, Trainer::gmm);
    const std::vector<float> x = clustered(nb, d, 1);
    faiss::IndexFlat quantizer(d, metric);
    IndexIVFFlatFlash index(&quantizer, d, nlist, metric);
    index.trainer = trainer;
    index.train(nb, x.data());
    CHECK(index.is_trained);
    REQUIRE(quantizer.ntotal == (idx_t)nlist);
    CHECK(index.variances.size() == nlist);
    CHECK(std::fabs(sum(index.mixing_weights) - 1) < 1e-4);

    faiss::IndexFlat expected(d, metric);
    std::unique_ptr<FlashClustering> clustering(
            trainer == Trainer::gmm
                    ? new GMMClustering(d, nlist, index.cp, index.gmm)
                    : new FlashClustering(d, nlist, index.cp));
    clustering->train(nb, x.data(), expected);
    CHECK(vectors_of(quantizer) == vectors_of(expected));
    CHECK(index.variances == clustering->variances);
    CHECK(index.mixing_weights == clustering->mixing_weights);

    const Model model = index.model();
    CHECK(model.k == nlist);
    CHECK(model.means == vectors_of(quantizer));
    CHECK(model.variances == index.variances);
    CHECK((model.metric == Metric::l2) == (metric == faiss::METRIC_L2));
}

TEST_CASE("an index is trained and filled with diagonal covariances") {
    const auto covariance = GENERATE(Covariance::diag, Covariance::tied_diag);
    std::vector<float> x = clustered(nb, d, 4);
    for (size_t i = 0; i < nb; i++) {
        x[i * d] *= 5; // not spherical
    }
    faiss::IndexFlatL2 quantizer(d);
    IndexIVFFlatFlash index(&quantizer, d, nlist);
    index.gmm.covariance = covariance;
    index.policy = AssignmentPolicy::responsibility(0.01, 3);
    index.train(nb, x.data());
    index.add(nb, x.data());
    faiss::IndexFlatL2 expected(d);
    GMMClustering clustering(d, nlist, index.cp, index.gmm);
    clustering.train(nb, x.data(), expected);
    CHECK(index.variances.size() == nlist * d);
    CHECK(index.variances == clustering.variances);
    CHECK(index.model().is_diagonal());
    // the lists are those of the responsibilities
    MixtureQuantizer mixture(d, nlist);
    mixture.add(nlist, clustering.centroids.data());
    mixture.set_mixture(clustering.variances, clustering.mixing_weights);
    std::vector<idx_t> labels(nb * 3);
    std::vector<float> r(nb * 3);
    mixture.responsibilities(nb, x.data(), 3, labels.data(), r.data());
    size_t copies = 0;
    std::vector<std::set<idx_t>> lists(nlist), found(nlist);
    for (size_t e = 0; e < nb * 3; e++) {
        if (labels[e] >= 0 && (e % 3 == 0 || r[e] > 0.01)) {
            lists[labels[e]].insert(e / 3);
            copies++;
        }
    }
    for (size_t list = 0; list < nlist; list++) {
        faiss::InvertedLists::ScopedIds ids(index.invlists, list);
        found[list].insert(
                ids.get(), ids.get() + index.invlists->list_size(list));
    }
    CHECK(found == lists);
    CHECK(index.ncopies() == copies);
    CHECK(copies > nb); // some vectors have two
    // a mixture quantizer holds the same
    MixtureQuantizer told(d, nlist);
    IndexIVFFlatFlash other(&told, d, nlist);
    other.gmm.covariance = covariance;
    other.train(nb, x.data());
    CHECK(told.variances == index.variances);
    CHECK(told.is_mixture());
}

TEST_CASE("quantizer_trains_alone means what it means in FAISS") {
    const std::vector<float> x = clustered(nb, d, 2);
    SECTION("1: the quantizer's own training") {
        MixtureQuantizer quantizer(d, nlist);
        IndexIVFFlatFlash index(&quantizer, d, nlist);
        index.quantizer_trains_alone = 1;
        index.train(nb, x.data());
        CHECK(quantizer.is_mixture());
        CHECK(index.variances == quantizer.variances);
        CHECK(index.mixing_weights == quantizer.mixing_weights);
    }
    SECTION("2: a flat index, then added") {
        faiss::IndexHNSWFlat hnsw(d, 8);
        IndexIVFFlatFlash index(&hnsw, d, nlist);
        index.quantizer_trains_alone = 2;
        index.train(nb, x.data());
        CHECK(hnsw.ntotal == (idx_t)nlist);
        CHECK(index.variances.size() == nlist);
    }
    SECTION("clustering_index receives the centroids too") {
        faiss::IndexFlatL2 quantizer(d), clustering_index(d);
        IndexIVFFlatFlash index(&quantizer, d, nlist);
        index.clustering_index = &clustering_index;
        index.train(nb, x.data());
        CHECK(vectors_of(quantizer) == vectors_of(clustering_index));
    }
    SECTION("0 with a mixture quantizer: it is told the mixture") {
        MixtureQuantizer quantizer(d, nlist);
        IndexIVFFlatFlash index(&quantizer, d, nlist);
        index.trainer = Trainer::gmm;
        index.train(nb, x.data());
        CHECK(quantizer.is_mixture());
        CHECK(quantizer.variances == index.variances);
    }
}

TEST_CASE("given centroids are kept and their variance estimated") {
    const std::vector<float> x = clustered(nb, d, 3);
    auto quantizer = first_rows_quantizer(d, nlist, x);
    const std::vector<float> before = vectors_of(*quantizer);
    IndexIVFFlatFlash index(quantizer.get(), d, nlist);
    index.policy = AssignmentPolicy::air();
    index.train(nb, x.data());
    CHECK(index.variances.empty()); // nobody asked
    index.policy = AssignmentPolicy::responsibility();
    index.train(nb, x.data());
    CHECK(vectors_of(*quantizer) == before);

    double energy = 0;
    std::vector<double> counts(nlist);
    for (size_t i = 0; i < nb; i++) {
        idx_t nearest;
        float dist;
        quantizer->search(1, &x[i * d], 1, &dist, &nearest);
        energy += dist;
        counts[nearest]++;
    }
    REQUIRE(index.variances.size() == nlist);
    for (size_t c = 0; c < nlist; c++) {
        CHECK(about(index.variances[c], energy / (nb * d)));
        CHECK(about(index.mixing_weights[c], counts[c] / nb));
    }

    // at most 256 vectors per list are looked at
    const size_t many = 700;
    const std::vector<float> two = clustered(many, d, 4);
    auto small = first_rows_quantizer(d, 2, two);
    IndexIVFFlatFlash sampled(small.get(), d, 2);
    sampled.policy = AssignmentPolicy::responsibility();
    sampled.train(many, two.data());
    REQUIRE(sampled.mixing_weights.size() == 2);
    const double hits = 512.0 * sampled.mixing_weights[0];
    CHECK(std::fabs(hits - std::round(hits)) < 1e-3);
}

TEST_CASE("training that fails leaves the quantizer as it was") {
    // enough vectors for the lists, too few for the product quantizer
    const size_t few = 100;
    const std::vector<float> x = clustered(few, d, 5);
    faiss::IndexFlatL2 quantizer(d);
    IndexIVFPQFlash index(&quantizer, d, nlist, 4, 8);
    index.cp.min_points_per_centroid = 1;
    CHECK_THROWS_AS(index.train(few, x.data()), faiss::FaissException);
    CHECK_FALSE(index.is_trained);
    CHECK(quantizer.ntotal == 0);
    CHECK(index.variances.empty());

    // a quantizer that held something else
    quantizer.add(3, x.data());
    const std::vector<float> before = vectors_of(quantizer);
    CHECK_THROWS_AS(index.train(few, x.data()), faiss::FaissException);
    CHECK(vectors_of(quantizer) == before);
}

TEST_CASE("names of trainers") {
    for (Trainer trainer : {Trainer::kmeans, Trainer::gmm}) {
        CHECK(trainer_by_name(to_string(trainer)) == trainer);
    }
    check_throws([] { trainer_by_name("em"); }, {"em", "kmeans", "gmm"});
}

TEST_CASE("a mixture quantizer serves a stock index") {
    const std::vector<float> x = clustered(nb, d, 6);
    MixtureQuantizer quantizer(d, nlist);
    quantizer.gmm.em_niter = 10;
    faiss::IndexIVFFlat stock(&quantizer, d, nlist);
    stock.quantizer_trains_alone = 1;
    stock.train(nb, x.data());
    stock.add(nb, x.data());
    CHECK(quantizer.is_mixture());
    stock.nprobe = nlist;
    const Results found = search(stock, x, 1);
    for (size_t i = 0; i < nb; i++) {
        CHECK(found.labels[i] == (idx_t)i);
    }

    // its responsibilities are the engine's
    const idx_t m = 3;
    std::vector<idx_t> labels(nb * m), expected_labels(nb * m);
    std::vector<float> r(nb * m), expected_r(nb * m);
    std::vector<float> log_likelihood(nb);
    quantizer.responsibilities(
            nb, x.data(), m, labels.data(), r.data(), log_likelihood.data());
    reference_engine().responsibilities(
            quantizer.model(),
            nb,
            x.data(),
            m,
            expected_labels.data(),
            expected_r.data(),
            nullptr);
    for (size_t i = 0; i < nb * m; i++) {
        CHECK(about(r[i], expected_r[i], 1e-4));
        CHECK((i % m == 0 || r[i] <= r[i - 1]));
    }
    for (float value : log_likelihood) {
        CHECK(std::isfinite(value));
    }
}

TEST_CASE("a mixture quantizer forgets what no longer holds") {
    const std::vector<float> x = clustered(nb, d, 7);
    MixtureQuantizer quantizer(d, 4);
    quantizer.train(nb, x.data());
    REQUIRE(quantizer.is_mixture());
    const std::vector<float> variances = quantizer.variances;
    const std::vector<float> weights = quantizer.mixing_weights;
    SECTION("add") {
        quantizer.add(1, x.data());
    }
    SECTION("reset") {
        quantizer.reset();
    }
    SECTION("remove_ids") {
        quantizer.remove_ids(faiss::IDSelectorRange(0, 1));
    }
    CHECK_FALSE(quantizer.is_mixture());
    CHECK_FALSE(quantizer.model().is_mixture());
    idx_t label;
    float r;
    check_throws(
            [&] { quantizer.responsibilities(1, x.data(), 1, &label, &r); },
            {"mixture", "set_mixture"});
    quantizer.reset();
    quantizer.add(4, x.data());
    quantizer.set_mixture(variances, weights);
    CHECK(quantizer.is_mixture());
}
