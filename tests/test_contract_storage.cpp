// Lists of other kinds than FAISS's arrays, lists that were changed behind an
// index's back, and what is counted over lists.

#include <tests/contract_util.h>

#include <filesystem>

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

constexpr size_t d = Fixture::d, nlist = Fixture::nlist;

#if FAISS_FLASH_HAS_LIST_CONTEXT
/// Lists that want to know the context.
struct ContextLists : faiss::ArrayInvertedLists {
    std::atomic<size_t> with_context{0};

    using faiss::ArrayInvertedLists::ArrayInvertedLists;

    size_t add_entry(
            size_t list_no,
            idx_t id,
            const uint8_t* code,
            void* context) override {
        with_context += context != nullptr;
        return add_entries(list_no, 1, &id, code);
    }
    bool is_empty(size_t list_no, void*) const override {
        return list_size(list_no) == 0;
    }
};
#endif

} // namespace

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

#if FAISS_FLASH_HAS_LIST_CONTEXT
TEST_CASE("contract: lists that take a context") {
    Fixture f;
    auto* lists = new ContextLists(nlist, f.index->code_size);
    f.index.replace_invlists(lists, true);
    f.add(50);
    CHECK(lists->with_context == 0);
    std::vector<idx_t> own(30, 3);
    int context = 0;
    f.index->add_core(30, f.row(50), nullptr, own.data(), &context);
    CHECK(lists->with_context == 30);
    CHECK(f.index->ntotal == 80);
    faiss::SearchParametersIVF params;
    params.nprobe = nlist;
    params.inverted_list_context = &context;
    const Results found = search(*f.index, f.xb, 1, &params);
    for (idx_t id = 0; id < 80; id++) {
        CHECK(found.labels[id] == id);
    }
}
#endif
