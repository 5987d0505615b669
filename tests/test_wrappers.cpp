// FAISS's wrappers around our classes, with copies in the lists: full results
// without duplicates, and ntotal counts vectors.

#include <tests/index_util.h>

#include <cstring>
#include <numeric>

#include <faiss/AutoTune.h>
#include <faiss/IVFlib.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexShards.h>
#if __has_include(<faiss/IndexShardsIVF.h>)
#include <faiss/IndexShardsIVF.h>
#define HAS_SHARDS_IVF 1
#else
#define HAS_SHARDS_IVF 0
#endif

#include <faiss_flash/ivf/index_factory.h>
#include <faiss_flash/ivf/wrapped_index.h>

using namespace faiss_flash;
using namespace test;

namespace {

constexpr int d = 16;
constexpr size_t nb = 600, nq = 20, nlist = 12;

const std::vector<float>& base() {
    static const std::vector<float> x = clustered(nb, d, 1);
    return x;
}
const std::vector<float>& queries() {
    static const std::vector<float> x = clustered(nq, d, 2);
    return x;
}

/// The IVF index inside all wrappers.
faiss::IndexIVF& inner_ivf(const faiss::Index& index) {
    return dynamic_cast<faiss::IndexIVF&>(
            const_cast<faiss::Index&>(innermost_index(index)));
}

std::unique_ptr<faiss::Index> make(const std::string& description) {
    std::unique_ptr<faiss::Index> index(
            faiss_flash::index_factory(d, description.c_str()));
    train_briefly(inner_ivf(*index));
    return index;
}

/// Every vector in two lists.
std::unique_ptr<faiss::IndexIVF> make_ivf(bool filled) {
    std::unique_ptr<faiss::IndexIVF> ivf(dynamic_cast<faiss::IndexIVF*>(
            make("IVF12(kmeans,top=2),Flat").release()));
    ivf->train(nb, base().data());
    if (filled) {
        ivf->add(nb, base().data());
    }
    return ivf;
}

/// What an exhaustive search finds, in the space that `index` compares in.
Results expected(idx_t k, const faiss::Index* transform = nullptr) {
    auto* pre = dynamic_cast<const faiss::IndexPreTransform*>(transform);
    if (!pre) {
        faiss::IndexFlatL2 flat(d);
        flat.add(nb, base().data());
        return search(flat, queries(), k);
    }
    const int inner_d = pre->index->d;
    const std::unique_ptr<const float[]> x(pre->apply_chain(nb, base().data()));
    const std::unique_ptr<const float[]> q(
            pre->apply_chain(nq, queries().data()));
    faiss::IndexFlatL2 flat(inner_d);
    flat.add(nb, x.get());
    return search(flat, std::vector<float>(q.get(), q.get() + nq * inner_d), k);
}

/// The same ids and distances, up to the order of near ties.
void check_same(const Results& found, const Results& truth, idx_t k) {
    CHECK(count_duplicates(found.labels, k) == 0);
    size_t wrong = 0, missing = 0;
    for (size_t i = 0; i < truth.distances.size(); i++) {
        wrong += !about(found.distances[i], truth.distances[i], 1e-3);
        missing += found.labels[i] < 0;
    }
    CHECK(wrong == 0);
    CHECK(missing == 0);
}

} // namespace

TEST_CASE("IndexIDMap around our classes", "[sanitize]") {
    const bool second = GENERATE(false, true);
    const auto index =
            make(second ? "IDMap2,IVF12(kmeans,top=2),Flat"
                        : "IDMap,IVF12(kmeans,top=2),Flat");
    auto* map = dynamic_cast<faiss::IndexIDMap*>(index.get());
    REQUIRE(map);
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = 5000 - 7 * i;
    }
    index->train(nb, base().data());
    index->add_with_ids(nb / 2, base().data(), ids.data());
    CHECK(index->ntotal == (idx_t)nb / 2);
    index->add_with_ids(
            nb / 2, base().data() + nb / 2 * d, ids.data() + nb / 2);
    CHECK(index->ntotal == (idx_t)nb);
    CHECK(map->index->ntotal == (idx_t)nb);
    dynamic_cast<faiss::IndexIVF*>(map->index)->nprobe = nlist;
    for (idx_t k : {1, 10, (int)nb}) {
        Results found = search(*index, queries(), k);
        check_same(found, expected(k), k);
        for (idx_t label : found.labels) {
            CHECK(label <= 5000);
        }
    }
    faiss::RangeSearchResult found(nq);
    index->range_search(nq, queries().data(), 1e9, &found);
    CHECK(found.lims[nq] == nq * nb);
    if (second) {
        dynamic_cast<faiss::IndexIVF*>(map->index)->make_direct_map();
        std::vector<float> row(d);
        index->reconstruct(ids[17], row.data());
        CHECK(std::equal(row.begin(), row.end(), base().begin() + 17 * d));
    }
    index->reset();
    CHECK(index->ntotal == 0);
}

TEST_CASE("IndexPreTransform around our classes", "[sanitize]") {
    using Pair = std::pair<const char*, const char*>;
    const auto pair = GENERATE(
            Pair{"PCA8", "Flat"},
            Pair{"OPQ4_8", "Flat"},
            Pair{"OPQ4_8", "PQ4x4"},
            Pair{"RR16,L2norm", "Flat"},
            Pair{"RR16,L2norm", "SQfp16"},
            Pair{"Pad20", "Flat"});
    const std::string transform = pair.first, code = pair.second;
    INFO(transform << " " << code);
    const auto index = make(transform + ",IVF12(kmeans,top=2)," + code);
    auto* pre = dynamic_cast<faiss::IndexPreTransform*>(index.get());
    for (faiss::VectorTransform* vt : pre->chain) {
        if (auto* opq = dynamic_cast<faiss::OPQMatrix*>(vt)) {
            opq->niter = opq->niter_pq = opq->niter_pq_0 = 1;
        }
    }
    index->train(nb, base().data());
    index->add(nb, base().data());
    CHECK(index->ntotal == (idx_t)nb);
    inner_ivf(*index).nprobe = nlist;
    const idx_t k = 25;
    const Results found = search(*index, queries(), k);
    CHECK(count_duplicates(found.labels, k) == 0);
    CHECK(std::count(found.labels.begin(), found.labels.end(), -1) == 0);
    if (code == "Flat") {
        check_same(found, expected(k, pre), k);
    }
    const faiss::IDSelectorRange some(100, 300);
    CHECK(index->remove_ids(some) == 200);
    CHECK(index->ntotal == (idx_t)nb - 200);
}

TEST_CASE("IndexRefineFlat around our classes") {
    for (const char* description :
         {"IVF12(kmeans,top=2),PQ4x4,RFlat",
          "PCA12,IVF12(kmeans,air),SQ4,RFlat",
          "IVF12(kmeans,closure=0.5),SQ8,Refine(SQfp16)"}) {
        INFO(description);
        const auto index = make(description);
        auto* refine = dynamic_cast<faiss::IndexRefine*>(index.get());
        index->train(nb, base().data());
        index->add(nb, base().data());
        CHECK(index->ntotal == (idx_t)nb);
        inner_ivf(*index).nprobe = nlist;
        const idx_t k = 10;
        // everything the base finds is re-ranked: the search is exact
        refine->k_factor = nb / k;
        const Results found = search(*index, queries(), k);
        CHECK(count_duplicates(found.labels, k) == 0);
        const Results truth = expected(k);
        size_t near = 0;
        for (size_t i = 0; i < nq * k; i++) {
            near += std::fabs(found.distances[i] - truth.distances[i]) <
                    0.02 * truth.distances[i] + 0.02;
        }
        CHECK(near == nq * k);
    }
}

// Not for ThreadSanitizer: it does not see how FAISS's threads are joined.
TEST_CASE("shards and replicas of our classes") {
    const bool threaded = GENERATE(false, true);
    const idx_t k = 30;
    std::vector<std::unique_ptr<faiss::IndexIVF>> parts;
    faiss::IndexShards shards(d, threaded, false);
    for (int i = 0; i < 3; i++) {
        parts.push_back(make_ivf(false));
        parts.back()->nprobe = nlist;
        shards.add_shard(parts.back().get());
    }
    shards.add(nb, base().data());
    CHECK(shards.ntotal == (idx_t)nb);
    size_t entries = 0;
    for (const auto& part : parts) {
        entries += part->invlists->compute_ntotal();
    }
    CHECK(entries == 2 * nb);
    check_same(search(shards, queries(), k), expected(k), k);

    const auto a = make_ivf(false), b = make_ivf(false);
    faiss::IndexReplicas replicas(d, threaded);
    replicas.add_replica(a.get());
    replicas.add_replica(b.get());
    replicas.add(nb, base().data());
    CHECK(replicas.ntotal == (idx_t)nb);
    a->nprobe = b->nprobe = nlist;
    check_same(search(replicas, queries(), k), expected(k), k);

#if HAS_SHARDS_IVF
    // which gives its shards one list per vector; copies come with shards
    // that are filled already
    faiss::IndexFlatL2 quantizer(d);
    faiss::IndexShardsIVF ivf_shards(&quantizer, nlist, threaded, false);
    std::vector<std::unique_ptr<faiss::IndexIVF>> filled;
    for (int i = 0; i < 2; i++) {
        filled.push_back(make_ivf(false));
        std::vector<idx_t> ids(nb / 2);
        std::iota(ids.begin(), ids.end(), i * nb / 2);
        filled.back()->add_with_ids(
                nb / 2, base().data() + i * nb / 2 * d, ids.data());
        filled.back()->nprobe = nlist;
    }
    std::vector<float> centroids(nlist * d);
    filled[0]->quantizer->reconstruct_n(0, nlist, centroids.data());
    quantizer.add(nlist, centroids.data());
    for (const auto& shard : filled) {
        ivf_shards.addIndex(shard.get());
    }
    CHECK(ivf_shards.ntotal == (idx_t)nb);
    faiss::SearchParametersIVF params;
    params.nprobe = nlist;
    Results found{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
    ivf_shards.search(
            nq,
            queries().data(),
            k,
            found.distances.data(),
            found.labels.data(),
            &params);
    check_same(found, expected(k), k);
    const std::vector<float> more = clustered(100, d, 3);
    ivf_shards.add(100, more.data());
    CHECK(ivf_shards.ntotal == (idx_t)nb + 100);
    CHECK(count_duplicates(search(ivf_shards, queries(), k).labels, k) == 0);
#endif
}

TEST_CASE("ivflib's functions on our classes") {
    namespace lib = faiss::ivflib;
    const idx_t k = 15;
    const auto index = make_ivf(true), other = make_ivf(false);
    other->add(nb, base().data());
    CHECK(lib::extract_index_ivf((faiss::Index*)index.get()) == index.get());
    faiss::SearchParametersIVF params;
    params.nprobe = nlist;
    Results found{std::vector<float>(nq * k), std::vector<idx_t>(nq * k)};
    lib::search_with_parameters(
            index.get(),
            nq,
            queries().data(),
            k,
            found.distances.data(),
            found.labels.data(),
            &params);
    check_same(found, expected(k), k);
    faiss::RangeSearchResult in_range(nq);
    lib::range_search_with_parameters(
            index.get(), nq, queries().data(), 1e9, &in_range, &params);
    CHECK(in_range.lims[nq] == nq * nb);

    std::vector<idx_t> query_lists(nq), result_lists(nq * k), nearest(nq);
    lib::search_centroid(index.get(), queries().data(), nq, nearest.data());
    index->nprobe = nlist;
    lib::search_and_return_centroids(
            index.get(),
            nq,
            queries().data(),
            k,
            found.distances.data(),
            found.labels.data(),
            query_lists.data(),
            result_lists.data());
    CHECK(query_lists == nearest);
    check_same(found, expected(k), k);
    // the list that is named holds the vector
    size_t elsewhere = 0;
    for (size_t i = 0; i < nq * k; i++) {
        const size_t list = result_lists[i];
        REQUIRE(list < nlist);
        const size_t size = index->invlists->list_size(list);
        const faiss::InvertedLists::ScopedIds ids(index->invlists, list);
        bool there = false;
        for (size_t j = 0; j < size; j++) {
            there = there || ids[j] == found.labels[i];
        }
        elsewhere += !there;
    }
    CHECK(elsewhere == 0);

    lib::check_compatible_for_merge(index.get(), other.get());
    lib::merge_into(index.get(), other.get(), true);
    CHECK(index->ntotal == 2 * (idx_t)nb);
    CHECK(other->ntotal == 0);
    CHECK(count_duplicates(search(*index, queries(), 2 * nb).labels, 2 * nb) ==
          0);
}

TEST_CASE("ParameterSpace tunes our classes, in wrappers as well") {
    for (const char* description :
         {"IVF12(kmeans,top=2),Flat",
          "PCA12,IVF12(kmeans,top=2),SQ8",
          "IVF12(kmeans,top=2),PQ4x4,RFlat"}) {
        INFO(description);
        const auto index = make(description);
        index->train(nb, base().data());
        index->add(nb, base().data());
        faiss::ParameterSpace space;
        space.initialize(index.get());
        space.set_index_parameter(index.get(), "nprobe", 5);
        CHECK(inner_ivf(*index).nprobe == 5);
        const Results truth = expected(10);
        faiss::IntersectionCriterion criterion(nq, 10);
        criterion.set_groundtruth(
                10, truth.distances.data(), truth.labels.data());
        faiss::OperatingPoints points;
        space.verbose = 0;
        space.n_experiments = 8;
        space.explore(index.get(), nq, queries().data(), criterion, &points);
        REQUIRE(!points.optimal_pts.empty());
        CHECK(points.optimal_pts.back().perf >
              (description[0] == 'I' && strstr(description, "Flat") ? 0.5
                                                                    : 0.3));
    }
}
