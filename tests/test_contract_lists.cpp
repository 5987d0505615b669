// Operations between indexes and on lists: merging, copying subsets, other
// kinds of inverted lists, ivflib, reset.

#include <tests/contract_util.h>

#include <cmath>
#include <filesystem>
#include <map>

#include <unistd.h>

#include <faiss/IVFlib.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/VectorTransform.h>
#include <faiss/invlists/BlockInvertedLists.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

#include <faiss_flash/ivf/vector_count.h>

using namespace faiss_flash;
using namespace test;
using faiss::DirectMap;
using Fixture = ContractFixture;

namespace {

constexpr size_t d = Fixture::d, nlist = Fixture::nlist, nb = Fixture::nb;

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

TEST_CASE("contract: lists on disk", "[sanitize]") {
    const auto path = std::filesystem::temp_directory_path() /
            ("flash_lists_" + std::to_string(getpid()));
    {
        Fixture f(Codec::flat), in_memory(Codec::flat);
        f.index.replace_invlists(
                new faiss::OnDiskInvertedLists(
                        nlist, f.index->code_size, path.c_str()),
                true);
        for (Fixture* fixture : {&f, &in_memory}) {
            fixture->index.set_direct_map_type(DirectMap::Hashtable);
            fixture->add(200);
            CHECK(fixture->index->remove_ids(faiss::IDSelectorRange(20, 90)) ==
                  70);
            const std::vector<idx_t> ids = {5, 150};
            fixture->index->update_vectors(2, ids.data(), fixture->row(300));
        }
        CHECK(ListContents(*f.index) == ListContents(*in_memory.index));
        CHECK(f.index->ntotal == 130);
        CHECK(f.holds_row(150, 301));
        for (int mode : {0, 1, 2, 3}) {
            f.index->parallel_mode = mode;
            CHECK(search(*f.index, f.xq, 15).labels ==
                  search(*in_memory.index, f.xq, 15).labels);
        }
        // merged on disk as FAISS's tools do it: ntotal is the caller's
        Fixture merged(Codec::flat);
        auto* lists = new faiss::OnDiskInvertedLists(
                nlist, f.index->code_size, (path.string() + "2").c_str());
        lists->merge_from_1(f.index->invlists);
        merged.index.replace_invlists(lists, true);
        CHECK(merged.index.has_copies());
        merged.index.recount();
        CHECK(merged.index->ntotal == 130);
        CHECK(search(*merged.index, f.xq, 15).labels ==
              search(*in_memory.index, f.xq, 15).labels);
    }
    std::filesystem::remove(path);
    std::filesystem::remove(path.string() + "2");
}

TEST_CASE("contract: lists with packed codes are refused") {
    Fixture f;
    faiss::BlockInvertedLists blocks(nlist, 32, 32 * f.index->code_size);
    f.index.replace_invlists(&blocks, false);
    const std::vector<std::string> why = {"packed codes", "FastScan"};
    check_throws([&] { f.add(10); }, why);
    check_throws([&] { search(*f.index, f.xq, 3); }, why);
    check_throws([&] { f.index->remove_ids(faiss::IDSelectorAll()); }, why);
    f.index.replace_invlists(nullptr, false);
    check_throws([&] { f.add(10); }, {"no inverted lists"});
}

TEST_CASE("contract: lists changed behind the index's back") {
    Fixture f, g;
    f.add(200);
    g.index->add(100, g.row(200));
    SECTION("replaced through the base class") {
        faiss::IndexIVF& base = *g.index;
        base.replace_invlists(f.index->invlists, false);
        f.index->own_invlists = false;
        g.index->own_invlists = true;
        g.index.recount();
        CHECK(g.index->ntotal == 200);
        CHECK(g.index.has_copies());
        f.index->invlists = nullptr;
        return;
    }
    SECTION("a range of lists set by ivflib") {
        std::unique_ptr<faiss::ArrayInvertedLists> some(
                faiss::ivflib::get_invlist_range(&*f.index, 2, 7));
        g.index->reset();
        faiss::ivflib::set_invlist_range(&*g.index, 2, 7, some.get());
        g.index.recount();
        CHECK(g.index->ntotal == (idx_t)g.entries().size());
        CHECK(g.index.has_copies());
        const Results found = search(*g.index, f.xq, 10);
        CHECK(count_duplicates(found.labels, 10) == 0);
    }
    SECTION("a sliding window") {
        Fixture window;
        faiss::ivflib::SlidingIndexWindow slider(&*window.index);
        slider.step(&*f.index, false);
        slider.step(&*f.index, true);
        window.index.recount();
        CHECK(window.index->ntotal == 200);
        CHECK(window.index.has_copies());
        slider.step(nullptr, true);
        window.index.recount();
        CHECK(window.index->ntotal == 0);
        CHECK_FALSE(window.index.has_copies());
    }
}

TEST_CASE("contract: ivflib merges through a transform") {
    Fixture a, b;
    a.add(100);
    b.index->add(80, b.row(100));
    auto transformed = [](faiss::IndexIVF& ivf) {
        auto* identity = new faiss::LinearTransform(d, d);
        identity->A.assign(d * d, 0);
        for (size_t i = 0; i < d; i++) {
            identity->A[i * d + i] = 1;
        }
        identity->is_trained = true;
        auto index = std::make_unique<faiss::IndexPreTransform>(identity, &ivf);
        index->ntotal = ivf.ntotal;
        return index;
    };
    auto ta = transformed(*a.index), tb = transformed(*b.index);
    faiss::ivflib::merge_into(ta.get(), tb.get(), true);
    CHECK(ta->ntotal == 180);
    CHECK(tb->ntotal == 0);
    const Results found = search(*ta, a.xb, 1);
    for (idx_t i = 0; i < 180; i++) {
        CHECK(found.labels[i] == i);
    }
    for (auto& index : {ta.get(), tb.get()}) {
        delete index->chain[0];
        index->chain.clear();
    }
}

TEST_CASE("contract: counting different ids") {
    faiss::ArrayInvertedLists lists(3, 1);
    CHECK(count_distinct_ids(lists) == 0);
    CHECK(largest_id(lists) == -1);
    const uint8_t code[4] = {};
    const std::vector<idx_t> dense = {5, 0, 5, 130};
    lists.add_entries(1, 4, dense.data(), code);
    CHECK(count_distinct_ids(lists) == 3);
    const std::vector<idx_t> sparse = {idx_t(1) << 60, 5, -7, -7};
    lists.add_entries(2, 4, sparse.data(), code);
    CHECK(count_distinct_ids(lists) == 5);
    CHECK(largest_id(lists) == idx_t(1) << 60);
}

TEST_CASE("contract: find_duplicates has a vector in one group at most") {
    const std::vector<float> x = clustered(300, d, 5);
    auto quantizer = first_rows_quantizer(d, nlist, x);
    IndexIVFPQFlash index(quantizer.get(), d, nlist, 2, 8);
    train_briefly(index);
    index.policy = AssignmentPolicy::top_m(3);
    index.train(300, x.data());
    index.add(40, x.data());
    for (int again = 0; again < 2; again++) {
        index.add(10, x.data()); // 40 ... 49, 50 ... 59 are 0 ... 9
    }
    std::vector<idx_t> ids(index.ntotal);
    std::vector<size_t> lims(index.ntotal + 1);
    const size_t ngroup = index.find_duplicates(ids.data(), lims.data());
    std::set<idx_t> met;
    for (size_t g = 0; g < ngroup; g++) {
        const std::set<idx_t> group(&ids[lims[g]], &ids[lims[g + 1]]);
        CHECK(group.size() == lims[g + 1] - lims[g]);
        for (idx_t id : group) {
            CHECK(met.insert(id).second);
            if (id < 10) {
                CHECK(group.count(40 + id) + group.count(50 + id) == 2);
            }
        }
    }
    for (idx_t id = 0; id < 10; id++) {
        CHECK(met.count(id));
    }
}
