#pragma once

// Indexes for the tests of single operations of IndexIVF.

#include <tests/slow_search.h>

#include <map>

#include <faiss/impl/AuxIndexStructures.h>

namespace test {

/// One of the three classes with what only they have.
struct AnyFlash {
    Flash flash;
    std::function<void(idx_t, const float*, const idx_t*, int, const idx_t*)>
            add_to_lists;
    std::function<void(faiss::DirectMap::Type)> set_direct_map_type;
    std::function<void(faiss::InvertedLists*, bool)> replace_invlists;
    std::function<void(idx_t, const uint8_t*, const idx_t*)> add_sa_codes;
    std::function<void()> recount;

    faiss::IndexIVF* operator->() const {
        return flash.ivf.get();
    }
    faiss::IndexIVF& operator*() const {
        return *flash.ivf;
    }
    size_t ncopies() const {
        return flash.ncopies(*flash.ivf);
    }
    bool has_copies() const {
        return *flash.has_copies;
    }
};

template <class T>
bool fill_any(AnyFlash& any) {
    T* index = dynamic_cast<T*>(any.flash.ivf.get());
    if (!index) {
        return false;
    }
    any.add_to_lists = [=](idx_t n,
                           const float* x,
                           const idx_t* ids,
                           int m,
                           const idx_t* lists) {
        index->add_to_lists(n, x, ids, m, lists);
    };
    any.set_direct_map_type = [=](faiss::DirectMap::Type type) {
        index->set_direct_map_type(type);
    };
    any.replace_invlists = [=](faiss::InvertedLists* lists, bool own) {
        index->replace_invlists(lists, own);
    };
    any.add_sa_codes = [=](idx_t n, const uint8_t* codes, const idx_t* ids) {
        index->add_sa_codes(n, codes, ids);
    };
    any.recount = [=] { index->recount(); };
    return true;
}

/// A trained index over centroids that are the first rows of xb.
struct ContractFixture {
    static constexpr size_t d = 8, nlist = 12, nb = 400, nq = 20;
    std::vector<float> xb = clustered(nb, d, 1);
    std::vector<float> xq = clustered(nq, d, 2);
    std::unique_ptr<faiss::IndexFlat> quantizer;
    AnyFlash index;

    explicit ContractFixture(
            Codec codec = Codec::flat,
            AssignmentPolicy policy = AssignmentPolicy::top_m(2),
            faiss::MetricType metric = faiss::METRIC_L2)
            : quantizer(first_rows_quantizer(d, nlist, xb, metric)) {
        index.flash = make_flash(codec, quantizer.get(), nlist);
        index.flash.options->policy = policy;
        index->train(nb, xb.data());
        index->nprobe = nlist;
        using namespace faiss_flash;
        REQUIRE(
                (fill_any<IndexIVFFlatFlash>(index) ||
                 fill_any<IndexIVFPQFlash>(index) ||
                 fill_any<IndexIVFScalarQuantizerFlash>(index)));
    }

    const float* row(size_t i) const {
        return &xb[i * d];
    }
    void add(size_t n = nb) {
        index->add(n, xb.data());
    }
    std::vector<float> reconstructed(idx_t id) const {
        std::vector<float> y(d);
        index->reconstruct(id, y.data());
        return y;
    }
    bool holds_row(idx_t id, size_t i) const {
        const std::vector<float> y = reconstructed(id);
        return std::equal(y.begin(), y.end(), row(i));
    }
    /// Ids and how many entries each has.
    std::map<idx_t, size_t> entries() const {
        std::map<idx_t, size_t> count;
        for (auto& list : ListContents(*index).ids) {
            for (idx_t id : list) {
                count[id]++;
            }
        }
        return count;
    }
};

/// All that an operation that throws has to leave alone.
struct State {
    ListContents lists;
    idx_t ntotal;
    bool has_copies;
    faiss::DirectMap map;

    explicit State(const AnyFlash& index)
            : lists(*index),
              ntotal(index->ntotal),
              has_copies(index.has_copies()),
              map(index->direct_map) {}
    bool operator==(const State& other) const {
        return lists == other.lists && ntotal == other.ntotal &&
                has_copies == other.has_copies && map.type == other.map.type &&
                map.array == other.map.array &&
                map.hashtable == other.map.hashtable;
    }
};

/// fn throws what check_throws wants and changes nothing.
inline void check_refuses(
        const AnyFlash& index,
        const std::function<void()>& fn,
        const std::vector<std::string>& parts) {
    const State before(index);
    check_throws(fn, parts);
    CHECK(before == State(index));
}

/// Lists whose changes begin to fail: additions, updates or cuts.
struct FragileLists : faiss::ArrayInvertedLists {
    std::atomic<int> calls_left{1 << 30};

    using faiss::ArrayInvertedLists::ArrayInvertedLists;

    void count() {
        if (calls_left-- <= 0) {
            calls_left = 1 << 30; // what is undone succeeds
            FAISS_THROW_MSG("the lists are full");
        }
    }
    size_t add_entries(
            size_t list_no,
            size_t n_entry,
            const idx_t* ids_in,
            const uint8_t* code) override {
        count();
        return ArrayInvertedLists::add_entries(list_no, n_entry, ids_in, code);
    }
    void update_entries(
            size_t list_no,
            size_t offset,
            size_t n_entry,
            const idx_t* ids_in,
            const uint8_t* code) override {
        count();
        ArrayInvertedLists::update_entries(
                list_no, offset, n_entry, ids_in, code);
    }
    void resize(size_t list_no, size_t new_size) override {
        count();
        ArrayInvertedLists::resize(list_no, new_size);
    }
};

} // namespace test
