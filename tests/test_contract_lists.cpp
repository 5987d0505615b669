// Operations on whole lists: merging, copying subsets, reset, direct maps.

#include <tests/contract_util.h>

#include <cmath>
#include <map>

using namespace faiss_flash;
using namespace test;
using faiss::DirectMap;
using Fixture = ContractFixture;

namespace {

constexpr size_t nlist = Fixture::nlist, nb = Fixture::nb;

Codec some_codec() {
    return GENERATE(Codec::flat, Codec::pq, Codec::sq8);
}

void copy(Fixture& from, faiss::IndexIVF& to, int type, idx_t a1, idx_t a2) {
    from.index->copy_subset_to(to, FAISS_FLASH_SUBSET_TYPE(type), a1, a2);
}

} // namespace

TEST_CASE("contract: merge_from moves vectors with their copies") {
    const Codec codec = some_codec();
    Fixture a(codec), b(codec), both(codec);
    a.add(150);
    b.index->add(100, a.row(150));
    both.add(250);
    a.index->merge_from(*b.index, 150);
    CHECK(a.index->ntotal == 250);
    CHECK(b.index->ntotal == 0);
    CHECK(b.index.ncopies() == 0);
    CHECK_FALSE(b.index.has_copies());
    CHECK(ListContents(*a.index) == ListContents(*both.index));

    // copies arrive in an index without
    Fixture c(codec, AssignmentPolicy::nearest());
    c.add(50);
    c.index->merge_from(*a.index, 50);
    CHECK(c.index.has_copies());
    CHECK(c.index->ntotal == 300);
    const Results found = search(*c.index, c.xq, 300);
    CHECK(count_duplicates(found.labels, 300) == 0);
    CHECK(std::count(found.labels.begin(), found.labels.end(), -1) == 0);
}

TEST_CASE("contract: merge_from refuses") {
    Fixture a, b;
    a.add(50);
    b.add(50);
    check_refuses(
            a.index,
            [&] { a.index->merge_from(*a.index, 50); },
            {"merge_from", "itself"});
    Fixture pq(Codec::pq);
    check_refuses(a.index, [&] { a.index->merge_from(*pq.index, 50); }, {});
    a.index.set_direct_map_type(DirectMap::Hashtable);
    check_refuses(
            a.index,
            [&] { a.index->merge_from(*b.index, 50); },
            {"direct_map"});
    a.index.set_direct_map_type(DirectMap::NoMap);
    b.index.set_direct_map_type(DirectMap::Array);
    check_refuses(
            b.index,
            [&] { a.index->merge_from(*b.index, 50); },
            {"direct_map"});
    CHECK(a.index->ntotal == 50);
    a.index->check_compatible_for_merge(*Fixture().index);
}

TEST_CASE("contract: a merge that fails gives everything back") {
    // failing in either index's lists, at every call
    for (bool in_other : {false, true}) {
        Fixture a, b;
        Fixture& fragile = in_other ? b : a;
        auto* lists = new FragileLists(nlist, a.index->code_size);
        fragile.index.replace_invlists(lists, true);
        a.add(60);
        b.index->add(70, b.row(60));
        const State state_a(a.index), state_b(b.index);
        size_t nfailure = 0;
        for (bool failed = true; failed;) {
            lists->calls_left = nfailure;
            failed = false;
            try {
                a.index->merge_from(*b.index, 60);
            } catch (const faiss::FaissException&) {
                failed = true;
                nfailure++;
                REQUIRE(State(a.index) == state_a);
                REQUIRE(State(b.index) == state_b);
            }
        }
        CHECK(nfailure >= nlist);
        CHECK(a.index->ntotal == 130);
    }
}

TEST_CASE("contract: an element range takes its share of every list") {
    Fixture f(Codec::flat, AssignmentPolicy::nearest());
    f.add();
    for (idx_t a1 : {0, 1, 57, 200}) {
        for (idx_t a2 : {200, 201, 399}) {
            Fixture part;
            copy(f, *part.index, 2, a1, a2);
            CHECK(part.index->ntotal == a2 - a1);
            for (size_t list = 0; list < nlist; list++) {
                const double fair = (double)(a2 - a1) / nb *
                        f.index->invlists->list_size(list);
                CHECK(std::fabs(part.index->invlists->list_size(list) - fair) <
                      2);
            }
        }
    }
}

TEST_CASE("contract: subsets keep copies together") {
    const Codec codec = some_codec();
    Fixture f(codec);
    f.add();
    const std::map<idx_t, size_t> all = f.entries();
    struct Parts {
        int type;
        std::vector<std::pair<idx_t, idx_t>> bounds;
    };
    const idx_t n = nb;
    const Parts parts = GENERATE_COPY(
            Parts{0, {{0, 100}, {100, 101}, {101, n}}},
            Parts{1, {{3, 0}, {3, 1}, {3, 2}}},
            Parts{2, {{0, 100}, {100, 100}, {100, 350}, {350, n}}},
            Parts{3, {{4, 0}, {4, 1}, {4, 2}, {4, 3}}});
    std::map<idx_t, size_t> copied;
    idx_t total = 0;
    for (auto& bound : parts.bounds) {
        Fixture target(codec);
        copy(f, *target.index, parts.type, bound.first, bound.second);
        total += target.index->ntotal;
        const auto entries = target.entries();
        CHECK(target.index->ntotal == (idx_t)entries.size());
        CHECK(target.index.has_copies());
        for (auto& entry : entries) {
            CHECK(entry.second == all.at(entry.first)); // with all copies
            CHECK(copied.insert(entry).second);         // in one part only
        }
        if (parts.type == 2) {
            CHECK(target.index->ntotal == bound.second - bound.first);
        }
        const Results found = search(*target.index, f.xq, 20);
        CHECK(count_duplicates(found.labels, 20) == 0);
    }
    CHECK(copied == all);
    CHECK(total == f.index->ntotal);
}

TEST_CASE("contract: a subset of lists is these lists") {
    Fixture f, low, high;
    f.add();
    copy(f, *low.index, 4, 0, 5);
    copy(f, *high.index, 4, 5, nlist);
    const ListContents all(*f.index);
    const ListContents a(*low.index), b(*high.index);
    for (size_t list = 0; list < nlist; list++) {
        CHECK(all.ids[list] == (list < 5 ? a : b).ids[list]);
        CHECK((list < 5 ? b : a).ids[list].empty());
    }
    CHECK(low.index->ntotal == (idx_t)low.entries().size());
    // vectors with copies on both sides are in both
    CHECK(low.index->ntotal + high.index->ntotal > (idx_t)nb);
}

TEST_CASE("contract: without copies subsets are FAISS's") {
    const Codec codec = some_codec();
    Fixture f(codec, AssignmentPolicy::nearest());
    auto stock = make_stock(codec, f.quantizer.get(), nlist);
    stock->train(nb, f.xb.data());
    f.add();
    stock->add(nb, f.xb.data());
    const int last = FAISS_FLASH_FAISS_VERSION >= 10704 ? 4 : 2;
    for (int type = 0; type <= last; type++) {
        const idx_t a1 = type == 1 || type == 3 ? 3 : 4;
        const idx_t a2 = type == 1 || type == 3 ? 1 : 9;
        auto ours = make_stock(codec, f.quantizer.get(), nlist);
        auto theirs = make_stock(codec, f.quantizer.get(), nlist);
        copy(f, *ours, type, a1, a2);
        stock->copy_subset_to(*theirs, FAISS_FLASH_SUBSET_TYPE(type), a1, a2);
        // FAISS's rounding of 2 may take an entry into two parts
        CHECK((type == 2 || ListContents(*ours) == ListContents(*theirs)));
        CHECK(ours->ntotal == theirs->ntotal);
        CHECK(theirs->ntotal > 0);
    }
}

TEST_CASE("contract: copy_subset_to refuses") {
    Fixture f, target, pq(Codec::pq);
    f.add(100);
    auto refuses = [&](int type, idx_t a1, idx_t a2, const char* why) {
        check_refuses(
                target.index,
                [&] { copy(f, *target.index, type, a1, a2); },
                {"copy_subset_to", why});
    };
    refuses(5, 0, 1, "subset type 5");
    refuses(-1, 0, 1, "subset type -1");
    refuses(1, 0, 0, "a1 other than 0");
    refuses(2, 50, 101, "a2 = 101");
    refuses(2, 51, 50, "a1 = 51");
    refuses(3, 3, 3, "a2 < a1");
    refuses(4, 0, nlist + 1, "nlist");
    check_throws([&] { copy(f, *pq.index, 0, 0, 1); }, {"code_size = 4", "32"});
    check_throws([&] { copy(f, *f.index, 0, 0, 1); }, {"itself"});
    target.index.set_direct_map_type(DirectMap::Hashtable);
    refuses(0, 0, 50, "direct map");
    Fixture empty, other;
    copy(empty, *other.index, 2, 0, 0);
    CHECK(other.index->ntotal == 0);
}

TEST_CASE("contract: reset empties") {
    Fixture f(some_codec());
    const auto map = GENERATE(DirectMap::Array, DirectMap::Hashtable);
    f.index.set_direct_map_type(map);
    f.add();
    f.index->reset();
    CHECK(f.index->ntotal == 0);
    CHECK(f.index.ncopies() == 0);
    CHECK_FALSE(f.index.has_copies());
    CHECK(f.index->direct_map.type == map);
    CHECK_THROWS_AS(f.reconstructed(0), faiss::FaissException);
    f.add(10);
    f.reconstructed(9);
}

TEST_CASE("contract: a direct map that cannot be made leaves the old one") {
    Fixture f;
    f.add(50);
    f.index.set_direct_map_type(DirectMap::Hashtable);
    f.index->remove_ids(faiss::IDSelectorRange(0, 10));
    // ids up to 49 for 40 vectors
    check_refuses(
            f.index,
            [&] { f.index.set_direct_map_type(DirectMap::Array); },
            {"direct map"});
    f.reconstructed(49);
}
