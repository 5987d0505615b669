// Less usual ways to scan the lists, ids and shapes.

#include <tests/slow_search.h>

#include <cmath>

#include <faiss/IndexHNSW.h>
#include <faiss/utils/distances.h>

#include <faiss_flash/visited_set.h>

#if FAISS_FLASH_HAS_SEARCH1
#include <faiss/impl/ResultHandler.h>
#endif

using namespace faiss_flash;
using namespace test;

namespace {

using Fixture = SearchFixture;
constexpr size_t d = Fixture::d, nlist = Fixture::nlist;
constexpr size_t nb = Fixture::nb, nq = Fixture::nq;

} // namespace

#if FAISS_FLASH_HAS_SEARCH1
TEST_CASE("search1 returns no id twice") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(3));
    f.add();
    struct Collect : faiss::ResultHandler {
        std::vector<idx_t> ids;
        bool add_result(float, idx_t id) override {
            ids.push_back(id);
            return false;
        }
    } collect;
    collect.threshold = HUGE_VALF;
    f.flash->search1(f.xq.data(), collect);
    const std::set<idx_t> distinct(collect.ids.begin(), collect.ids.end());
    CHECK(distinct.size() == collect.ids.size());
    CHECK(f.flash.counters->queries == 1);
    CHECK(f.flash.counters->distances == collect.ids.size());
    CHECK(f.flash.counters->entries > collect.ids.size());
}
#endif

TEST_CASE("polysemous filtering returns no id twice") {
    Fixture f(Codec::pq, faiss::METRIC_L2, AssignmentPolicy::top_m(3));
    f.add();
    dynamic_cast<faiss::IndexIVFPQ&>(*f.flash.ivf).polysemous_ht = 17;
    f.flash->nprobe = nlist;
    const idx_t k = 50;
    const Results found = search(*f.flash.ivf, f.xq, k);
    CHECK(count_duplicates(found.labels, k) == 0);
    CHECK(found.labels[0] >= 0);
    CHECK(f.flash.counters->entries == nq * 3 * nb);
    CHECK(f.flash.counters->distances == nq * nb);
}

#if FAISS_FLASH_HAS_LIST_ITERATORS
namespace {

/// Lists that are read through iterators, as those in a data base.
struct IteratedLists : faiss::ArrayInvertedLists {
    IteratedLists(size_t nlist, size_t code_size)
            : faiss::ArrayInvertedLists(nlist, code_size) {
        use_iterator = true;
    }

    struct Iterator : faiss::InvertedListsIterator {
        const IteratedLists& lists;
        size_t list_no, at = 0;

        Iterator(const IteratedLists& lists, size_t list_no)
                : lists(lists),
                  list_no(list_no) {}
        bool is_available() const override {
            return at < lists.list_size(list_no);
        }
        void next() override {
            at++;
        }
        std::pair<idx_t, const uint8_t*> get_id_and_codes() override {
            return {lists.get_ids(list_no)[at],
                    lists.get_codes(list_no) + at * lists.code_size};
        }
    };

    bool is_empty(size_t list_no, void*) const override {
        return list_size(list_no) == 0;
    }
    faiss::InvertedListsIterator* get_iterator(size_t list_no, void*)
            const override {
        return new Iterator(*this, list_no);
    }
};

} // namespace

TEST_CASE("lists read through iterators") {
    for (const AssignmentPolicy& policy :
         {AssignmentPolicy::nearest(), AssignmentPolicy::top_m(2)}) {
        Fixture f(Codec::flat, faiss::METRIC_L2, policy);
        f.flash->replace_invlists(
                new IteratedLists(nlist, f.flash->code_size), true);
        f.add();
        const faiss::IDSelectorRange range(0, nb / 2);
        for (const faiss::IDSelector* sel :
             {(const faiss::IDSelector*)nullptr,
              (const faiss::IDSelector*)&range}) {
            faiss::SearchParametersIVF params;
            params.nprobe = 5;
            params.sel = const_cast<faiss::IDSelector*>(sel);
            f.flash.counters->reset();
            const idx_t k = 10;
            const Results found = search(*f.flash.ivf, f.xq, k, &params);
            SlowSearch slow(*f.flash.ivf, *f.stock);
            for (size_t i = 0; i < nq; i++) {
                CHECK(SlowSearch::agrees(
                        slow.run(&f.xq[i * d], 5, sel),
                        &found.labels[i * k],
                        &found.distances[i * k],
                        k));
            }
            CHECK(f.flash.counters->entries == slow.entries);
            CHECK(f.flash.counters->distances == slow.distances);
        }
        f.flash.counters->reset();
        faiss::RangeSearchResult result(nq);
        f.flash->range_search(nq, f.xq.data(), 25, &result);
        for (size_t i = 0; i < nq; i++) {
            const std::set<idx_t> distinct(
                    result.labels + result.lims[i],
                    result.labels + result.lims[i + 1]);
            CHECK(distinct.size() == result.lims[i + 1] - result.lims[i]);
        }
        CHECK(result.lims[nq] > 0);
        SlowSearch slow(*f.flash.ivf, *f.stock);
        for (size_t i = 0; i < nq; i++) {
            slow.run(&f.xq[i * d], f.flash->nprobe);
        }
        CHECK(f.flash.counters->entries == slow.entries);
        CHECK(f.flash.counters->distances == slow.distances);
    }
}
#endif

TEST_CASE("an id added several times is returned once") {
    Fixture f(Codec::flat, faiss::METRIC_L2, AssignmentPolicy::top_m(2));
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = (idx_t(i % 100) << 40) - 7; // far apart, negative too
    }
    f.flash->add_with_ids(nb, f.xb.data(), ids.data());
    f.flash->nprobe = nlist;
    const idx_t k = 150;
    const Results found = search(*f.flash.ivf, f.xq, k);
    for (size_t i = 0; i < nq; i++) {
        std::set<idx_t> labels(
                &found.labels[i * k], &found.labels[i * k] + 100);
        CHECK(labels.size() == 100);
        CHECK(found.labels[i * k + 100] == -1);
    }
}

TEST_CASE("awkward shapes") {
    struct Shape {
        size_t d, nlist, n;
    };
    const Shape s = GENERATE(
            Shape{1, 1, 5}, Shape{3, 2, 2}, Shape{7, 5, 31}, Shape{1, 4, 9});
    const std::vector<float> x = clustered(s.n, s.d, 7);
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        auto quantizer = first_rows_quantizer(s.d, s.nlist, x, metric);
        Flash flash = make_flash(Codec::flat, quantizer.get(), s.nlist);
        flash->train(s.n, x.data());
        flash->add(s.n, x.data());
        flash->nprobe = 100;
        const idx_t k = s.n + 3;
        const Results found = search(*flash.ivf, x, k);
        CHECK(count_duplicates(found.labels, k) == 0);
        for (size_t i = 0; i < s.n; i++) {
            CHECK(std::count(
                          &found.labels[i * k], &found.labels[i * k] + k, -1) ==
                  3);
        }
    }
}

TEST_CASE("a graph as quantizer assigns exactly") {
    const std::vector<float> xb = clustered(nb, d, 8);
    faiss::IndexHNSWFlat hnsw(d, 8);
    hnsw.add(nlist, xb.data());
    auto flat = first_rows_quantizer(d, nlist, xb);
    Flash a = make_flash(Codec::flat, &hnsw, nlist);
    Flash b = make_flash(Codec::flat, flat.get(), nlist);
    for (Flash* flash : {&a, &b}) {
        (*flash)->train(nb, xb.data());
        (*flash)->add(nb, xb.data());
    }
    CHECK(ListContents(*a.ivf) == ListContents(*b.ivf));
}

TEST_CASE("the set of visited ids", "[sanitize]") {
    // none dense, fewer than one word, not a multiple of a word, many
    const size_t n_dense = GENERATE(0, 1, 63, 64, 65, 250, 100000);
    std::mt19937_64 rng(1);
    VisitedSet visited(n_dense);
    for (int query = 0; query < 50; query++) {
        std::set<int64_t> expected;
        visited.clear();
        const size_t n = query % 7 == 0 ? 5000 : 300;
        for (size_t i = 0; i < n; i++) {
            // dense, around the last dense one, sparse, multiples of a power
            // of two, extremes
            const int64_t choice[] = {
                    int64_t(rng() % 500),
                    int64_t(n_dense + rng() % 5) - 2,
                    int64_t(rng()),
                    int64_t(rng() % 1000) << 50,
                    i % 2 ? INT64_MIN : INT64_MAX};
            const int64_t id = choice[rng() % 5];
            REQUIRE(visited.insert(id) == expected.insert(id).second);
        }
    }
}

TEST_CASE("ids are inserted into the visited set many at a time") {
    std::mt19937_64 rng(2);
    VisitedSet visited(3000);
    for (int query = 0; query < 300; query++) {
        std::set<int64_t> expected;
        visited.clear();
        for (int list = 0; list < 5; list++) {
            std::vector<int64_t> ids(rng() % (query % 10 ? 40 : 2000));
            for (int64_t& id : ids) {
                id = int64_t(rng() % 3500) - 100;
            }
            const auto wanted = [](int64_t id) { return id % 3 != 0; };
            size_t next = 0;
            visited.insert_each(
                    ids.size(), ids.data(), wanted, [&](size_t j, bool fresh) {
                        REQUIRE(j == next++);
                        REQUIRE(fresh ==
                                (wanted(ids[j]) &&
                                 expected.insert(ids[j]).second));
                    });
            REQUIRE(next == ids.size());
        }
    }
}

TEST_CASE("a visited set forgets at every query, however many") {
    VisitedSet visited(10);
    size_t wrong = 0;
    for (int64_t query = 0; query < 1 << 17; query++) {
        visited.clear();
        const bool fresh = visited.insert(3) && visited.insert(~(query & 1));
        wrong += fresh && !visited.insert(3) ? 0 : 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("codes so long that they are fetched ahead") {
    // 4 kilobytes hold 15, 1 and no code
    const size_t long_d = GENERATE(66, 700, 1100);
    const size_t n = 200, lists = 3, queries = 5;
    const idx_t k = 20;
    const std::vector<float> x = clustered(n, long_d, 3);
    const std::vector<float> xq = clustered(queries, long_d, 4);
    auto quantizer = first_rows_quantizer(long_d, lists, x);
    Flash flash = make_flash(Codec::flat, quantizer.get(), lists);
    auto stock = make_stock(Codec::flat, quantizer.get(), lists);
    const bool copies = GENERATE(false, true);
    if (copies) {
        flash.options->policy = AssignmentPolicy::top_m(2);
    } else {
        flash.options->policy = AssignmentPolicy::nearest();
    }
    for (faiss::IndexIVF* index : {flash.ivf.get(), stock.get()}) {
        index->train(n, x.data());
        index->add(n, x.data());
        index->nprobe = 2;
    }
    flash.counters->reset();
    const faiss::IDSelectorRange range(20, 150);
    for (const faiss::IDSelector* sel :
         {(const faiss::IDSelector*)nullptr,
          (const faiss::IDSelector*)&range}) {
        faiss::SearchParametersIVF params;
        params.nprobe = 2;
        params.sel = const_cast<faiss::IDSelector*>(sel);
        flash.counters->reset();
        const Results found = search(*flash.ivf, xq, k, &params);
        SlowSearch slow(*flash.ivf, *stock);
        for (size_t i = 0; i < queries; i++) {
            CHECK(SlowSearch::agrees(
                    slow.run(&xq[i * long_d], 2, sel),
                    &found.labels[i * k],
                    &found.distances[i * k],
                    k));
        }
        CHECK(flash.counters->entries == slow.entries);
        CHECK(flash.counters->distances == slow.distances);
    }
    if (!copies) {
        const Results ours = search(*flash.ivf, xq, k);
        const Results theirs = search(*stock, xq, k);
        CHECK(ours.labels == theirs.labels);
        CHECK(ours.distances == theirs.distances);
    }
    // pairs are offsets in the lists, however few codes are scanned at once
    std::vector<float> dist(queries * k);
    std::vector<idx_t> keys(queries * 2), pairs(queries * k);
    std::vector<float> coarse(queries * 2);
    quantizer->search(queries, xq.data(), 2, coarse.data(), keys.data());
    flash->search_preassigned(
            queries,
            xq.data(),
            k,
            keys.data(),
            coarse.data(),
            dist.data(),
            pairs.data(),
            true);
    std::vector<float> vector(long_d);
    for (size_t i = 0; i < queries; i++) {
        for (idx_t j = 0; j < k; j++) {
            const idx_t pair = pairs[i * k + j];
            REQUIRE(pair >= 0);
            flash->reconstruct_from_offset(
                    faiss::lo_listno(pair),
                    faiss::lo_offset(pair),
                    vector.data());
            CHECK(about(
                    dist[i * k + j],
                    faiss::fvec_L2sqr(&xq[i * long_d], vector.data(), long_d)));
        }
    }
}
