// Files and clones of indexes inside FAISS's wrappers: our class comes back,
// with policy, mixture and copies.

#include <tests/index_file_util.h>

#include <typeinfo>

#include <faiss/IndexIDMap.h>
#include <faiss/IndexRefine.h>
#include <faiss/index_io.h>

#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/ivf/IndexUnique.h>
#include <faiss_flash/ivf/index_factory.h>
#include <faiss_flash/ivf/wrapped_index.h>

using namespace faiss_flash;
using namespace test;

namespace {

constexpr int d = 8;
constexpr size_t nb = 400;

std::unique_ptr<faiss::Index> filled(const std::string& description) {
    std::unique_ptr<faiss::Index> index(
            faiss_flash::index_factory(d, description.c_str()));
    const std::vector<float> x = clustered(nb, d, 1);
    index->train(nb, x.data());
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = 2 * i + 1;
    }
    if (dynamic_cast<faiss::IndexIDMap*>(index.get())) {
        index->add_with_ids(nb, x.data(), ids.data());
    } else {
        index->add(nb, x.data());
    }
    return index;
}

std::vector<std::string> descriptions() {
    return {"IVF8(gmm,tau=1/K,em_niter=3),Flat",
            "PCA6,IVF8(kmeans,closure=0.4,candidates=4),SQ8",
            "OPQ2,IVF8(gmm,air=0.3,strict,em_niter=3,covariance=diag),PQ2x4",
            "IDMap,IVF8(kmeans,soar=0.7),Flat",
            "IDMap2,PCA4,IVF8(kmeans,top=2),SQfp16",
            "IVF8(kmeans,top=3),SQ8,RFlat",
            "PCA4,IVF8(kmeans,top=2),SQ8,Refine(SQfp16)",
            "IVF8_HNSW4(kmeans,top=2),Flat"};
}

void check_same(const faiss::Index& is, const faiss::Index& was) {
    // FAISS 1.7.3 reads an IndexRefine with a flat index as IndexRefineFlat
    CHECK((typeid(is) == typeid(was) ||
           (dynamic_cast<const faiss::IndexRefine*>(&is) &&
            dynamic_cast<const faiss::IndexRefine*>(&was))));
    CHECK(is.ntotal == was.ntotal);
    const faiss::Index &a = innermost_index(is), &b = innermost_index(was);
    REQUIRE(typeid(a) == typeid(b));
    auto& ours = dynamic_cast<const FlashOptions&>(a);
    auto& theirs = dynamic_cast<const FlashOptions&>(b);
    CHECK(ours.trainer == theirs.trainer);
    CHECK(ours.engine == theirs.engine);
    CHECK(ours.policy.rule == theirs.policy.rule);
    CHECK(ours.policy.max_lists == theirs.policy.max_lists);
    CHECK(ours.policy.lambda == theirs.policy.lambda);
    CHECK(ours.policy.strict == theirs.policy.strict);
    CHECK(ours.policy.candidates == theirs.policy.candidates);
    CHECK(ours.gmm.em_niter == theirs.gmm.em_niter);
    if (auto* flat = dynamic_cast<const IndexIVFFlatFlash*>(&a)) {
        auto& other = dynamic_cast<const IndexIVFFlatFlash&>(b);
        CHECK(flat->variances == other.variances);
        CHECK(flat->mixing_weights == other.mixing_weights);
        CHECK(flat->has_copies == other.has_copies);
    }
    CHECK(ListContents(dynamic_cast<const faiss::IndexIVF&>(a)) ==
          ListContents(dynamic_cast<const faiss::IndexIVF&>(b)));
    const std::vector<float> xq = clustered(15, d, 2);
    for (idx_t k : {1, 20}) {
        const Results x = search(is, xq, k), y = search(was, xq, k);
        CHECK(x.labels == y.labels);
        CHECK(x.distances == y.distances);
        CHECK(count_duplicates(x.labels, k) == 0);
    }
}

} // namespace

TEST_CASE("wrapped indexes come back from files and clones", "[sanitize]") {
    Folder folder;
    for (const std::string& description : descriptions()) {
        INFO(description);
        auto index = filled(description);
        faiss_flash::write_index(index.get(), folder.file().c_str());
        const std::unique_ptr<faiss::Index> read(
                faiss_flash::read_index(folder.file().c_str()));
        const std::unique_ptr<faiss::Index> clone(
                faiss_flash::clone_index(index.get()));
        check_same(*read, *index);
        check_same(*clone, *index);
        // stock FAISS opens the file as well
        const std::unique_ptr<faiss::Index> stock(
                faiss::read_index(folder.file().c_str()));
        CHECK(stock->ntotal == index->ntotal);
        // a clone is a copy of its own
        auto& inner =
                dynamic_cast<const faiss::IndexIVF&>(innermost_index(*clone));
        const size_t entries = inner.invlists->compute_ntotal();
        index->reset();
        index.reset();
        CHECK(clone->ntotal == (idx_t)nb);
        CHECK(inner.invlists->compute_ntotal() == entries);
        check_same(*clone, *read);
    }
}

TEST_CASE("stock FAISS finds in our files what we find, with duplicates") {
    Folder folder;
    const std::vector<float> xq = clustered(15, d, 2);
    for (const char* description :
         {"IVF8(kmeans,top=3),Flat",
          "IVF8(gmm,air,em_niter=3),Flat",
          "IVF8_HNSW4(kmeans,closure=0.4),Flat"}) {
        INFO(description);
        const auto ours = filled(description);
        faiss_flash::write_index(ours.get(), folder.file().c_str());
        const std::unique_ptr<faiss::Index> read(
                faiss::read_index(folder.file().c_str()));
        auto& stock = dynamic_cast<faiss::IndexIVF&>(*read);
        CHECK_FALSE(dynamic_cast<FlashOptions*>(read.get()));
        dynamic_cast<faiss::IndexIVF&>(*ours).nprobe = stock.nprobe = 4;
        CHECK(count_duplicates(search(stock, xq, 30).labels, 30) > 0);
        IndexUnique unique(&stock);
        for (idx_t k : {1, 10, 300}) {
            const Results a = search(*ours, xq, k), b = search(unique, xq, k);
            CHECK(a.labels == b.labels);
            CHECK(a.distances == b.distances);
        }
    }
}

TEST_CASE("clones keep mixture quantizers and direct maps") {
    const std::vector<float> x = clustered(nb, d, 1);
    MixtureQuantizer mixture(d, 8);
    mixture.gmm.em_niter = 3;
    IndexIVFPQFlash index(&mixture, d, 8, 2, 4);
    train_briefly(index);
    index.policy = AssignmentPolicy::responsibility(0.1, 3);
    index.train(nb, x.data());
    index.make_direct_map();
    index.policy = AssignmentPolicy::nearest();
    index.add(nb, x.data());
    const std::unique_ptr<faiss::Index> clone(faiss_flash::clone_index(&index));
    auto& copy = dynamic_cast<IndexIVFPQFlash&>(*clone);
    auto* quantizer = dynamic_cast<MixtureQuantizer*>(copy.quantizer);
    REQUIRE(quantizer);
    CHECK(quantizer != &mixture);
    CHECK(copy.own_fields);
    CHECK(quantizer->variances == mixture.variances);
    CHECK(copy.direct_map.array == index.direct_map.array);
    check_same(copy, index);
    CHECK(copy.counters.queries > 0);
    CHECK_THROWS_AS(faiss_flash::clone_index(nullptr), faiss::FaissException);
}

TEST_CASE("a precomputed table is there after reading") {
    Folder folder;
    const auto index = filled("IVF8(kmeans,top=2),PQ2x4");
    auto& was = dynamic_cast<IndexIVFPQFlash&>(*index);
    CHECK(was.use_precomputed_table == 1);
    faiss_flash::write_index(index.get(), folder.file().c_str());
    const auto read = read_as<IndexIVFPQFlash>(folder.file());
    CHECK(read->use_precomputed_table == 1);
    CHECK(read->precomputed_table.size() == was.precomputed_table.size());
}

TEST_CASE("what files cannot hold is named, and leaves the old file") {
    Folder folder;
    put_bytes(folder.file(), "old");
    auto refused = [&](const faiss::Index& index,
                       const std::vector<std::string>& parts) {
        check_throws(
                [&] {
                    faiss_flash::write_index(&index, folder.file().c_str());
                },
                parts);
        CHECK(bytes_of(folder.file()) == "old");
        CHECK(folder.count() == 1);
    };
    refused(*filled("IVF8(kmeans,top=2),PQ4x4fs"), {"IndexIVFFlatFlash"});
    refused(*filled("PCA4,Flat"), {"IndexIVFFlatFlash"});
    refused(*std::unique_ptr<faiss::Index>(faiss_flash::index_factory(
                    d, "MinMax,IVF8(kmeans,top=2),Flat")),
            {"of a kind"});
    refused(*filled("IVF8(kmeans,nearest),Flat,Refine(PQ2x4)"), {"IxPq"});
    // ours in places where FAISS writes the base class
    IndexIVFFlatFlash quantizer(new faiss::IndexFlatL2(d), d, 4);
    quantizer.own_fields = true;
    train_briefly(quantizer);
    IndexIVFFlatFlash index(&quantizer, d, 8);
    train_briefly(index);
    refused(index, {"quantizer"});
    const auto base = filled("IVF8(kmeans,top=2),SQ8");
    const auto ours = filled("IVF8(kmeans,top=2),Flat");
    faiss::IndexRefine refine(base.get(), ours.get());
    refused(refine, {"refine_index"});
    // ids that an IndexIDMap has nothing for
    auto map = filled("IDMap,IVF8(kmeans,top=2),Flat");
    auto* id_map = dynamic_cast<faiss::IndexIDMap*>(map.get());
    id_map->id_map.resize(10);
    refused(*map, {"id_map"});
    id_map->ntotal = 10;
    refused(*map, {"id "});
    map->ntotal = nb;
    id_map->id_map.resize(nb);
    const faiss::IDSelectorRange some(5, 6);
    id_map->index->remove_ids(some);
    refused(*map, {"not there"});
    // a centroid that is no number
    auto bad = filled("IVF8(kmeans,top=2),Flat");
    auto& ivf = dynamic_cast<faiss::IndexIVF&>(*bad);
    std::vector<float> centroids(8 * d, NAN);
    ivf.quantizer->reset();
    ivf.quantizer->add(8, centroids.data());
    refused(*bad, {"centroid"});
}
