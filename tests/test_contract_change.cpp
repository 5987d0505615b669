// Operations that change what an index holds: adding to own lists, removing,
// updating, direct maps; and that they change nothing when they fail.

#include <tests/contract_util.h>

#include <map>

using namespace faiss_flash;
using namespace test;
using faiss::DirectMap;
using Fixture = ContractFixture;

namespace {

constexpr size_t d = Fixture::d, nlist = Fixture::nlist, nb = Fixture::nb;

DirectMap::Type any_map() {
    return GENERATE(DirectMap::NoMap, DirectMap::Array, DirectMap::Hashtable);
}

Codec some_codec() {
    return GENERATE(Codec::flat, Codec::pq, Codec::sq8);
}

} // namespace

TEST_CASE("contract: remove_ids takes all copies", "[sanitize]") {
    Fixture f(some_codec());
    const DirectMap::Type map = any_map();
    f.index.set_direct_map_type(map);
    f.add();
    REQUIRE(f.index.ncopies() == 2 * nb);

    std::vector<idx_t> ids = {3, 17, 17, 99, 5000};
    CHECK(f.index->remove_ids(faiss::IDSelectorArray(5, ids.data())) == 3);
    CHECK(f.index->remove_ids(faiss::IDSelectorArray(5, ids.data())) == 0);
    CHECK(f.index->remove_ids(faiss::IDSelectorRange(100, 150)) == 50);
    CHECK(f.index->remove_ids(faiss::IDSelectorRange(100, 150, true)) == 0);
    CHECK(f.index->ntotal == (idx_t)nb - 53);
    CHECK(f.index.ncopies() == 2 * (nb - 53));
    CHECK(f.index.has_copies());
    for (auto& entry : f.entries()) {
        CHECK(entry.second == 2);
        if (map != DirectMap::NoMap) {
            f.reconstructed(entry.first); // no ghosts, nobody forgotten
        }
    }
    if (map != DirectMap::NoMap) {
        for (idx_t id : {3, 17, 99, 120}) {
            CHECK_THROWS_AS(f.reconstructed(id), faiss::FaissException);
        }
    }
    const Results found = search(*f.index, f.xq, nb);
    CHECK(count_duplicates(found.labels, nb) == 0);
    CHECK((size_t)std::count(found.labels.begin(), found.labels.end(), -1) ==
          53 * Fixture::nq);

    CHECK(f.index->remove_ids(faiss::IDSelectorAll()) == nb - 53);
    CHECK(f.index->ntotal == 0);
    CHECK(f.index.ncopies() == 0);
    CHECK_FALSE(f.index.has_copies());
}

TEST_CASE("contract: has_copies goes with the last copy") {
    Fixture f(Codec::flat, AssignmentPolicy::nearest());
    f.add(100);
    f.index.flash.options->policy = AssignmentPolicy::top_m(2);
    f.index->add(10, f.row(100));
    CHECK(f.index.has_copies());
    CHECK(f.index->remove_ids(faiss::IDSelectorRange(100, 109)) == 9);
    CHECK(f.index.has_copies());
    CHECK(f.index->remove_ids(faiss::IDSelectorRange(109, 110)) == 1);
    CHECK_FALSE(f.index.has_copies());
}

TEST_CASE("contract: without copies remove_ids leaves FAISS's lists") {
    const Codec codec = some_codec();
    Fixture f(codec, AssignmentPolicy::nearest());
    auto stock = make_stock(codec, f.quantizer.get(), nlist);
    stock->train(nb, f.xb.data());
    f.add();
    stock->add(nb, f.xb.data());
    std::vector<idx_t> ids;
    for (idx_t id = 0; id < (idx_t)nb; id++) {
        if (id % 3 == 0 || id > 380) {
            ids.push_back(id);
        }
    }
    const faiss::IDSelectorBatch sel(ids.size(), ids.data());
    CHECK(f.index->remove_ids(sel) == stock->remove_ids(sel));
    CHECK(f.index->ntotal == stock->ntotal);
    CHECK(ListContents(*f.index) == ListContents(*stock));
}

TEST_CASE("contract: ids after a removal") {
    // FAISS goes on at ntotal, an array map where no id was
    const DirectMap::Type map = any_map();
    Fixture f;
    f.index.set_direct_map_type(map);
    f.add(20);
    f.index->remove_ids(faiss::IDSelectorRange(0, 5));
    f.index->add(1, f.row(50));
    const bool array = map == DirectMap::Array;
    CHECK(f.entries().count(20) == array);
    CHECK(f.entries().at(15) == (array ? 2 : 4));
    CHECK(f.index->ntotal == 16);
    if (array) {
        CHECK(f.holds_row(20, 50));
    }
}

TEST_CASE("contract: ids that belong to several vectors") {
    const bool with_map = GENERATE(false, true);
    SECTION("without copies each entry counts") {
        Fixture f(Codec::flat, AssignmentPolicy::nearest());
        if (with_map) {
            f.index.set_direct_map_type(DirectMap::Hashtable);
        }
        const std::vector<idx_t> ids = {7, 7, 8, 7, 9};
        f.index->add_with_ids(5, f.xb.data(), ids.data());
        const idx_t seven = 7;
        CHECK(f.index->remove_ids(faiss::IDSelectorArray(1, &seven)) == 3);
        CHECK(f.index->ntotal == 2);
        CHECK(f.index.ncopies() == 2);
    }
    SECTION("with copies, the entries in one list") {
        Fixture f;
        if (with_map) {
            f.index.set_direct_map_type(DirectMap::Hashtable);
        }
        // 7: twice in lists 0 and 1, once in 2; 8: lists 0 and 1 apart
        const std::vector<idx_t> ids = {7, 7, 8, 8, 9};
        const std::vector<idx_t> lists = {0, 1, 1, 0, 0, -1, 1, -1, 0, 2};
        f.index.add_to_lists(5, f.xb.data(), ids.data(), 2, lists.data());
        CHECK(f.index->ntotal == 5);
        const idx_t seven = 7, eight = 8;
        CHECK(f.index->remove_ids(faiss::IDSelectorArray(1, &seven)) == 2);
        CHECK(f.index->ntotal == 3);
        // looks like one vector's two copies
        CHECK(f.index->remove_ids(faiss::IDSelectorArray(1, &eight)) == 1);
        CHECK(f.entries() == std::map<idx_t, size_t>{{9, 2}});
        CHECK(f.index->ntotal == 2);
        f.index.recount();
        CHECK(f.index->ntotal == 1);
        CHECK(f.index.has_copies());
    }
}

TEST_CASE("contract: update_vectors replaces all copies", "[sanitize]") {
    const Codec codec = some_codec();
    const auto map = GENERATE(DirectMap::Array, DirectMap::Hashtable);
    Fixture f(codec), expected(codec);
    for (Fixture* fixture : {&f, &expected}) {
        fixture->index.set_direct_map_type(map);
    }
    f.add(200);
    // of an id given twice the last row counts
    const std::vector<idx_t> ids = {10, 150, 10, 199};
    f.index->update_vectors(4, ids.data(), f.row(300));
    CHECK(f.index->ntotal == 200);
    CHECK(f.index.ncopies() == 400);

    std::vector<float> x(f.xb.begin(), f.xb.begin() + 200 * d);
    const std::map<idx_t, size_t> rows = {{10, 302}, {150, 301}, {199, 303}};
    for (auto& entry : rows) {
        std::copy_n(f.row(entry.second), d, &x[entry.first * d]);
    }
    expected.index->add(200, x.data());
    for (idx_t id = 0; id < 200; id++) {
        CHECK(f.reconstructed(id) == expected.reconstructed(id));
    }
    const Results a = search(*f.index, f.xq, 10);
    const Results b = search(*expected.index, f.xq, 10);
    CHECK(a.labels == b.labels);

    // other policies than the one they were added under
    f.index.flash.options->policy = AssignmentPolicy::nearest();
    std::vector<idx_t> all(200);
    for (idx_t id = 0; id < 200; id++) {
        all[id] = id;
    }
    f.index->update_vectors(200, all.data(), f.row(0));
    CHECK(f.index.ncopies() == 200);
    CHECK_FALSE(f.index.has_copies());
    f.index.flash.options->policy = AssignmentPolicy::top_m(3);
    f.index->update_vectors(1, all.data(), f.row(0));
    CHECK(f.index.ncopies() == 202);
    CHECK(f.index.has_copies());
    f.index->update_vectors(0, nullptr, nullptr);
}

TEST_CASE("contract: update_vectors refuses") {
    Fixture f;
    f.add(50);
    const idx_t id = 3;
    check_refuses(
            f.index,
            [&] { f.index->update_vectors(1, &id, f.row(0)); },
            {"update_vectors", "direct map"});
    f.index.set_direct_map_type(
            GENERATE(DirectMap::Array, DirectMap::Hashtable));
    const std::vector<idx_t> ids = {3, 50};
    check_refuses(
            f.index,
            [&] { f.index->update_vectors(2, ids.data(), f.row(0)); },
            {"ids[1] = 50", "not in the index"});
    f.index->remove_ids(faiss::IDSelectorRange(3, 4));
    check_refuses(
            f.index,
            [&] { f.index->update_vectors(1, &id, f.row(0)); },
            {"ids[0] = 3", "not in the index"});
    std::vector<float> bad(d, NAN);
    const idx_t four = 4;
    check_refuses(
            f.index,
            [&] { f.index->update_vectors(1, &four, bad.data()); },
            {"update_vectors", "x[0][0]"});
    check_refuses(
            f.index,
            [&] { f.index->update_vectors(-1, &four, f.row(0)); },
            {"update_vectors", "n = -1"});
    f.index.flash.options->policy = AssignmentPolicy::responsibility();
    check_refuses(
            f.index,
            [&] { f.index->update_vectors(1, &four, f.row(0)); },
            {"responsibility"});
}

TEST_CASE("contract: add_to_lists and add_core", "[sanitize]") {
    const Codec codec = some_codec();
    Fixture f(codec, AssignmentPolicy::top_m(3)), by_policy(codec);
    const DirectMap::Type map = any_map();
    f.index.set_direct_map_type(map);
    by_policy.add(100);
    // the lists that top_m gives, in its order
    std::vector<idx_t> lists(100 * 2);
    std::vector<float> dist(100 * 2);
    f.quantizer->search(100, f.xb.data(), 2, dist.data(), lists.data());
    f.index.add_to_lists(100, f.xb.data(), nullptr, 2, lists.data());
    CHECK(ListContents(*f.index) == ListContents(*by_policy.index));
    CHECK(f.index->ntotal == 100);
    CHECK(f.index.has_copies());
    if (map != DirectMap::NoMap) {
        // the map names the first list of each row
        for (idx_t id = 0; id < 100; id++) {
            CHECK(faiss::lo_listno(f.index->direct_map.get(id)) ==
                  (uint64_t)lists[id * 2]);
        }
    }

    Fixture single(codec, AssignmentPolicy::top_m(3));
    const std::vector<idx_t> own = {4, -1, 0};
    single.index->add_core(3, f.xb.data(), nullptr, own.data());
    CHECK(single.index->ntotal == 3); // as in FAISS, the second is lost
    CHECK(single.index.ncopies() == 2);
    CHECK_FALSE(single.index.has_copies());
    CHECK(single.index->invlists->list_size(4) == 1);
    single.index->add_core(0, nullptr, nullptr, nullptr);
    CHECK(single.index->remove_ids(faiss::IDSelectorAll()) == 2);

    check_refuses(
            f.index,
            [&] {
                f.index.add_to_lists(
                        1,
                        f.row(0),
                        nullptr,
                        2,
                        std::vector<idx_t>{5, 5}.data());
            },
            {"lists[0][1] = 5", "twice"});
    check_refuses(
            f.index,
            [&] {
                f.index.add_to_lists(
                        1,
                        f.row(0),
                        nullptr,
                        2,
                        std::vector<idx_t>{0, nlist}.data());
            },
            {"lists[0][1] = 12", "nlist = 12"});
    check_refuses(
            f.index,
            [&] { f.index.add_to_lists(1, f.row(0), nullptr, 0, own.data()); },
            {"m = 0"});
    check_refuses(
            f.index,
            [&] { f.index.add_to_lists(1, f.row(0), nullptr, 1, nullptr); },
            {"null"});
}

TEST_CASE("contract: codes come and go through the sa interface") {
    Fixture f(some_codec());
    const DirectMap::Type map = any_map();
    f.index.set_direct_map_type(map);
    const size_t bytes = f.index->sa_code_size();
    std::vector<uint8_t> codes(nb * bytes);
    f.index->sa_encode(nb, f.xb.data(), codes.data());
    f.index.add_sa_codes(nb, codes.data(), nullptr);
    CHECK(f.index->ntotal == (idx_t)nb);
    CHECK(f.index.ncopies() == nb);
    CHECK_FALSE(f.index.has_copies());
    std::vector<float> decoded(nb * d), all(nb * d);
    f.index->sa_decode(nb, codes.data(), decoded.data());
    f.index->reconstruct_n(0, nb, all.data());
    CHECK(decoded == all);

    codes[5 * bytes] = nlist; // no such list
    check_refuses(
            f.index,
            [&] { f.index.add_sa_codes(nb, codes.data(), nullptr); },
            {"list_no"});
    if (map == DirectMap::Array) {
        const idx_t id = 9;
        check_refuses(
                f.index,
                [&] { f.index.add_sa_codes(1, codes.data(), &id); },
                {"array direct map"});
    }
}

TEST_CASE("contract: a failure in the lists changes nothing", "[sanitize]") {
    const auto map = GENERATE(DirectMap::Array, DirectMap::Hashtable);
    const std::string operation = GENERATE("add", "remove", "update");
    Fixture f(Codec::sq8);
    auto* lists = new FragileLists(nlist, f.index->code_size);
    f.index.replace_invlists(lists, true);
    f.index.set_direct_map_type(map);
    f.add(200);
    std::vector<idx_t> ids(60);
    for (size_t i = 0; i < ids.size(); i++) {
        ids[i] = (i * 37) % 200;
    }
    const State before(f.index);
    size_t nfailure = 0;
    for (bool failed = true; failed;) {
        lists->calls_left = nfailure;
        failed = false;
        try {
            if (operation == "add") {
                f.index->add(100, f.row(200));
            } else if (operation == "remove") {
                f.index->remove_ids(
                        faiss::IDSelectorBatch(ids.size(), ids.data()));
            } else {
                f.index->update_vectors(60, ids.data(), f.row(200));
            }
        } catch (const faiss::FaissException&) {
            failed = true;
            nfailure++;
            REQUIRE(State(f.index) == before);
        }
    }
    CHECK(nfailure >= (operation == "add" ? nlist : 2 * nlist));
    CHECK(f.index->ntotal ==
          (operation == "add"              ? 300
                   : operation == "remove" ? 140
                                           : 200));
    CHECK(f.index.ncopies() == 2 * (size_t)f.index->ntotal);
}
