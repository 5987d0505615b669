// What add, train and the rest of IndexIVF leave in the lists.

#include <tests/index_util.h>

#include <stdexcept>

#include <datasets/dataset.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexRefine.h>

#include <faiss_flash/MixtureQuantizer.h>

using namespace faiss_flash;
using namespace test;

namespace {

const size_t d = 8, nlist = 12, nb = 600;

/// Lists that fail at the given call.
struct FailingLists : faiss::ArrayInvertedLists {
    std::atomic<int> calls_left{1 << 30};

    using faiss::ArrayInvertedLists::ArrayInvertedLists;

    size_t add_entries(
            size_t list_no,
            size_t n_entry,
            const idx_t* ids,
            const uint8_t* code) override {
        if (calls_left-- <= 0) {
            throw std::runtime_error("no space left in the lists");
        }
        return faiss::ArrayInvertedLists::add_entries(
                list_no, n_entry, ids, code);
    }
};

struct Fixture {
    std::vector<float> xb = clustered(nb, d, 1);
    std::unique_ptr<faiss::IndexFlat> quantizer =
            first_rows_quantizer(d, nlist, xb);
    Flash flash;

    explicit Fixture(
            Codec codec,
            AssignmentPolicy policy = AssignmentPolicy::top_m(2))
            : flash(make_flash(codec, quantizer.get(), nlist)) {
        flash.options->policy = policy;
        flash->train(nb, xb.data());
    }
    void add() {
        flash->add(nb, xb.data());
    }
};

} // namespace

TEST_CASE("a failed add leaves everything as it was", "[sanitize]") {
    const Codec codec = GENERATE(Codec::flat, Codec::pq, Codec::sq8);
    Fixture f(codec, AssignmentPolicy::nearest());
    auto* lists = new FailingLists(nlist, f.flash->code_size);
    f.flash->replace_invlists(lists, true);
    const bool with_map = GENERATE(false, true);
    if (with_map) {
        f.flash->make_direct_map();
    }
    f.flash->add(100, f.xb.data());
    const ListContents before(*f.flash.ivf);
    const std::vector<idx_t> map = f.flash->direct_map.array;

    if (!with_map) {
        f.flash.options->policy = AssignmentPolicy::top_m(2);
    }
    for (int successes : {0, 1, 5, 11}) {
        lists->calls_left = successes;
        CHECK_THROWS_WITH(
                f.flash->add(nb - 100, &f.xb[100 * d]),
                Catch::Matchers::ContainsSubstring("no space left"));
        CHECK(ListContents(*f.flash.ivf) == before);
        CHECK(f.flash->ntotal == 100);
        CHECK(f.flash->direct_map.array == map);
        CHECK_FALSE(*f.flash.has_copies);
    }
    lists->calls_left = 1 << 30;
    f.flash->add(nb - 100, &f.xb[100 * d]);
    CHECK(f.flash->ntotal == (idx_t)nb);
    CHECK(*f.flash.has_copies == !with_map);
    CHECK(f.flash.ncopies(*f.flash.ivf) ==
          (with_map ? nb : 100 + 2 * (nb - 100)));
}

TEST_CASE("a failure in a later block takes back the earlier ones", "[slow]") {
    // 16384 rows of two entries each are one block
    const size_t n = 40000;
    const std::vector<float> x = clustered(n, d, 3);
    Fixture f(Codec::flat);
    auto* lists = new FailingLists(nlist, f.flash->code_size);
    f.flash->replace_invlists(lists, true);
    f.add();
    const ListContents before(*f.flash.ivf);
    lists->calls_left = 2 * nlist + 3;
    CHECK_THROWS_WITH(
            f.flash->add(n, x.data()),
            Catch::Matchers::ContainsSubstring("no space left"));
    CHECK(ListContents(*f.flash.ivf) == before);
    CHECK(f.flash->ntotal == (idx_t)nb);
}

TEST_CASE("each copy is coded relative to its own centroid") {
    const Codec codec = GENERATE(Codec::flat, Codec::pq, Codec::sq8);
    Fixture f(codec);
    f.add();
    const ListContents contents(*f.flash.ivf);
    std::vector<uint8_t> code(f.flash->code_size);
    for (size_t list = 0; list < nlist; list++) {
        const idx_t list_no = list;
        for (size_t j = 0; j < contents.ids[list].size(); j++) {
            f.flash->encode_vectors(
                    1, &f.xb[contents.ids[list][j] * d], &list_no, code.data());
            CHECK(std::equal(
                    code.begin(),
                    code.end(),
                    &contents.codes[list][j * code.size()]));
        }
    }
}

TEST_CASE("ids stay sorted and parts equal the whole") {
    Fixture whole(Codec::flat, AssignmentPolicy::top_m(3));
    Fixture parts(Codec::flat, AssignmentPolicy::top_m(3));
    whole.add();
    for (size_t i = 0; i < nb;) {
        const size_t n = std::min<size_t>(i % 5 * 40 + 1, nb - i);
        parts.flash->add(n, &parts.xb[i * d]);
        i += n;
    }
    CHECK(whole.flash->check_ids_sorted());
    CHECK(ListContents(*whole.flash.ivf) == ListContents(*parts.flash.ivf));
    CHECK(parts.flash->ntotal == (idx_t)nb);
}

TEST_CASE("direct maps know every vector") {
    const auto type =
            GENERATE(faiss::DirectMap::Array, faiss::DirectMap::Hashtable);
    std::vector<float> recons(d);
    Fixture f(Codec::flat, AssignmentPolicy::nearest());
    f.flash->set_direct_map_type(type);
    f.flash->add(200, f.xb.data());
    std::vector<idx_t> ids(100);
    for (size_t i = 0; i < 100; i++) {
        ids[i] = 200 + i;
    }
    if (type == faiss::DirectMap::Hashtable) {
        ids[7] = idx_t(1) << 50;
        f.flash->add_with_ids(100, &f.xb[200 * d], ids.data());
    } else {
        CHECK_THROWS(f.flash->add_with_ids(100, &f.xb[200 * d], ids.data()));
        f.flash->add(100, &f.xb[200 * d]);
    }
    for (size_t i = 0; i < 300; i++) {
        f.flash->reconstruct(i < 200 ? (idx_t)i : ids[i - 200], recons.data());
        CHECK(std::equal(recons.begin(), recons.end(), &f.xb[i * d]));
    }

    f.flash.options->policy = AssignmentPolicy::top_m(2);
    f.flash->add(10, f.xb.data());
    CHECK(*f.flash.has_copies);
    CHECK(f.flash->ntotal == 310);
    for (size_t i = 0; i < 10; i++) {
        f.flash->reconstruct(300 + i, recons.data());
        CHECK(std::equal(recons.begin(), recons.end(), &f.xb[i * d]));
    }

    // the other way round: a map over vectors that have copies
    Fixture copies(Codec::flat);
    copies.add();
    copies.flash->set_direct_map_type(type);
    for (size_t i = 0; i < nb; i++) {
        copies.flash->reconstruct(i, recons.data());
        CHECK(std::equal(recons.begin(), recons.end(), &f.xb[i * d]));
    }
    copies.flash.options->policy = AssignmentPolicy::nearest();
    copies.flash->add(5, f.xb.data());
    copies.flash->reconstruct(nb + 2, recons.data());
    CHECK(std::equal(recons.begin(), recons.end(), &f.xb[2 * d]));
}

TEST_CASE("merging moves copies along") {
    const Codec codec = GENERATE(Codec::flat, Codec::sq16);
    Fixture a(codec, AssignmentPolicy::nearest()), b(codec), both(codec);
    a.flash->add(300, a.xb.data());
    b.flash->add(300, &b.xb[300 * d]);
    a.flash->merge_from(*b.flash.ivf, 300);
    CHECK(a.flash->ntotal == (idx_t)nb);
    CHECK(*a.flash.has_copies);
    CHECK(b.flash->ntotal == 0);
    CHECK_FALSE(*b.flash.has_copies);
    a.flash->nprobe = nlist;
    const Results found = search(*a.flash.ivf, a.xb, 20);
    CHECK(count_duplicates(found.labels, 20) == 0);
    CHECK(a.flash.counters->distances == nb * nb);

    auto stock = make_stock(codec, a.quantizer.get(), nlist);
    stock->train(nb, a.xb.data());
    CHECK_THROWS_AS(a.flash->merge_from(*stock, 0), faiss::FaissException);
    CHECK(*a.flash.has_copies);
}

TEST_CASE("wrappers of FAISS see logical ids") {
    Fixture f(Codec::flat);
    faiss::IndexIDMap with_ids(f.flash.ivf.get());
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = 10000 + 7 * i;
    }
    with_ids.add_with_ids(nb, f.xb.data(), ids.data());
    f.flash->nprobe = nlist;
    const Results mapped = search(with_ids, f.xb, 1);
    CHECK(mapped.labels == ids);

    Fixture coarse(Codec::pq);
    faiss::IndexRefineFlat refine(coarse.flash.ivf.get());
    refine.k_factor = 20;
    refine.add(nb, f.xb.data());
    CHECK(refine.ntotal == (idx_t)nb);
    coarse.flash->nprobe = nlist;
    const Results refined = search(refine, f.xb, 5);
    CHECK(count_duplicates(refined.labels, 5) == 0);
    size_t found_self = 0;
    for (size_t i = 0; i < nb; i++) {
        found_self += refined.labels[i * 5] == (idx_t)i;
    }
    CHECK(found_self > 0.99 * nb);
}

TEST_CASE("taking over a stock index") {
    const std::vector<float> xb = clustered(nb, d, 1);
    auto quantizer = first_rows_quantizer(d, nlist, xb);
    faiss::IndexIVFPQ stock(quantizer.get(), d, nlist, 4, 8);
    train_briefly(stock);
    stock.train(nb, xb.data());
    stock.add(nb, xb.data());
    stock.nprobe = 5;
    const Results before = search(stock, xb, 4);
    stock.own_fields = true;
    quantizer.release();
    IndexIVFPQFlash flash(stock);
    CHECK_FALSE(stock.own_fields);
    CHECK_FALSE(stock.own_invlists);
    CHECK(flash.own_fields);
    CHECK(flash.own_invlists);
    CHECK_FALSE(flash.has_copies);
    const Results after = search(flash, xb, 4);
    CHECK(after.labels == before.labels);
    CHECK(after.distances == before.distances);
    flash.policy = AssignmentPolicy::top_m(2);
    flash.add(nb, xb.data());
    CHECK(flash.ncopies() == 3 * nb);
    CHECK(flash.ntotal == (idx_t)(2 * nb));
}

TEST_CASE("real vectors: copies pay and never come twice", "[slow]") {
    const Dataset data = open_dataset(FAISS_FLASH_DATASETS_DIR
                                      "/wallsift-128-euclidean.hdf5");
    const size_t n = std::min<size_t>(data.base.n(), 20000);
    const size_t nq = std::min<size_t>(data.nq, 200);
    const size_t dim = data.base.d(), k = 10, lists = 128;
    std::vector<float> xb(n * dim);
    data.base.read(0, n, xb.data());
    const std::vector<float> xq(
            data.queries.begin(), data.queries.begin() + nq * dim);
    faiss::IndexFlatL2 exact(dim);
    exact.add(n, xb.data());
    const Results truth = search(exact, xq, k);

    double recall[2];
    for (int copies : {0, 1}) {
        faiss::IndexFlatL2 quantizer(dim);
        IndexIVFFlatFlash index(&quantizer, dim, lists);
        index.trainer = Trainer::kmeans;
        index.cp.max_points_per_centroid = 64;
        index.policy =
                copies ? AssignmentPolicy::air() : AssignmentPolicy::nearest();
        index.train(n, xb.data());
        index.add(n, xb.data());
        index.nprobe = 4;
        const Results found = search(index, xq, k);
        CHECK(count_duplicates(found.labels, k) == 0);
        size_t hits = 0;
        for (size_t i = 0; i < nq; i++) {
            for (size_t j = 0; j < k; j++) {
                hits += std::count(
                        &truth.labels[i * k],
                        &truth.labels[i * k] + k,
                        found.labels[i * k + j]);
            }
        }
        recall[copies] = (double)hits / (nq * k);
        CHECK((index.ncopies() > n) == (copies == 1));
    }
    CHECK(recall[1] > recall[0]);
}
