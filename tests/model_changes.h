#pragma once

// Random changes to an index and to the model of it.

#include <tests/model_pool.h>

namespace test {

using faiss::DirectMap;

template <class T>
class ModelChanges {
   protected:
    static constexpr size_t d = Pool<T>::d;

    /// @param repeat_ids  whether several vectors may be added under one id
    ModelChanges(
            const Pool<T>& pool,
            AssignmentPolicy policy,
            DirectMap::Type map,
            bool repeat_ids,
            unsigned seed)
            : pool_(pool),
              index_(pool.fresh()),
              repeat_ids_(repeat_ids),
              rng_(seed) {
        index_->policy = policy;
        index_->set_direct_map_type(map);
    }

    size_t below(size_t n) {
        return rng_() % n;
    }

    bool array_map() const {
        return index_->direct_map.type == DirectMap::Array;
    }

    /*********************************************************
     * What to add
     *********************************************************/

    struct Rows {
        std::vector<size_t> vectors; // of the pool
        std::vector<float> x;
        std::vector<idx_t> ids;
        const idx_t* xids = nullptr; // nullptr: the index chooses them
    };

    Rows rows(bool with_ids) {
        Rows r;
        const size_t n = 1 + below(6);
        // without ids the index goes on at ntotal, or with an array map at
        // the end of the map, and never asks what is there
        const idx_t first = array_map() ? (idx_t)array_size_ : index_->ntotal;
        for (size_t i = 0; i < n && !with_ids; i++) {
            with_ids = !repeat_ids_ && model_.has(first + i);
        }
        for (size_t i = 0; i < n; i++) {
            const size_t vector = below(pool_.nvector);
            r.vectors.push_back(vector);
            const float* x = &pool_.x[vector * d];
            r.x.insert(r.x.end(), x, x + d);
            idx_t id = first + i;
            if (with_ids) {
                id = below(4) == 0 ? (idx_t)below(1 << 30) - (1 << 29)
                                   : (idx_t)below(300);
                while (!repeat_ids_ &&
                       (model_.has(id) ||
                        std::count(r.ids.begin(), r.ids.end(), id))) {
                    id++;
                }
            }
            r.ids.push_back(id);
        }
        if (with_ids) {
            r.xids = r.ids.data();
        }
        return r;
    }

    void believe(const Rows& r) {
        for (size_t i = 0; i < r.ids.size(); i++) {
            model_.add(r.ids[i], r.vectors[i]);
        }
        if (array_map()) {
            array_size_ += r.ids.size();
        }
        total_ += r.ids.size();
    }

    /// add(r) has to succeed, or to fail where an array map is given ids.
    template <class Add>
    void try_add(const char* name, bool with_ids, Add&& add) {
        Rows r = rows(with_ids);
        log_ << name << "(" << r.ids.size() << (r.xids ? " with ids" : "")
             << ") ";
        if (array_map() && r.xids) {
            expect_throw([&] { add(r); });
            return;
        }
        add(r);
        believe(r);
    }

    template <class Fn>
    void expect_throw(Fn&& fn) {
        const ListContents before(*index_);
        const DirectMap map = index_->direct_map;
        bool thrown = false;
        try {
            fn();
        } catch (const faiss::FaissException&) {
            thrown = true;
        }
        expect(thrown, "no exception");
        expect(before == ListContents(*index_), "failed, but changed lists");
        expect(map.type == index_->direct_map.type &&
                       map.array == index_->direct_map.array &&
                       map.hashtable == index_->direct_map.hashtable,
               "failed, but changed the direct map");
    }

    void add() {
        try_add("add", false, [&](Rows& r) {
            index_->add_with_ids(r.ids.size(), r.x.data(), r.xids);
        });
    }

    void add_with_ids() {
        try_add("add", true, [&](Rows& r) {
            index_->add_with_ids(r.ids.size(), r.x.data(), r.xids);
        });
    }

    void add_to_lists() {
        const int m = 1 + below(3);
        try_add("add_to_lists", below(2), [&](Rows& r) {
            std::vector<idx_t> lists(r.ids.size() * m);
            for (size_t i = 0; i < r.ids.size(); i++) {
                const size_t list = below(pool_.nlist);
                lists[i * m] = list;
                for (int j = 1; j < m; j++) {
                    lists[i * m + j] = below(4) == 0
                            ? -1
                            : idx_t(list + j) % (idx_t)pool_.nlist;
                }
            }
            if (m == 1 && below(2)) {
                index_->add_core(
                        r.ids.size(), r.x.data(), r.xids, lists.data());
            } else {
                index_->add_to_lists(
                        r.ids.size(), r.x.data(), r.xids, m, lists.data());
            }
        });
    }

    void add_codes() {
        try_add("add_sa_codes", below(2), [&](Rows& r) {
            std::vector<uint8_t> codes(r.ids.size() * index_->sa_code_size());
            index_->sa_encode(r.ids.size(), r.x.data(), codes.data());
            index_->add_sa_codes(r.ids.size(), codes.data(), r.xids);
        });
    }

    /*********************************************************
     * What to take away or change
     *********************************************************/

    /// A selector of one of FAISS's kinds, and what it points to.
    struct Selector {
        std::vector<idx_t> ids;
        std::vector<uint8_t> bits;
        std::unique_ptr<faiss::IDSelector> inner, other, sel;
    };

    std::vector<idx_t> some_ids(size_t most, bool known) {
        std::vector<idx_t> all, some;
        for (auto& entry : model_.vectors) {
            all.push_back(entry.first);
        }
        for (size_t i = 0; i < most && !all.empty(); i++) {
            some.push_back(all[below(all.size())]);
        }
        if (!known && below(3) == 0) {
            some.push_back(idx_t(1) << 60);
        }
        return some;
    }

    Selector selector() {
        Selector s;
        s.ids = some_ids(1 + below(8), false);
        const idx_t from = below(200), to = from + below(200);
        switch (below(7)) {
            case 0:
                s.sel = std::make_unique<faiss::IDSelectorRange>(from, to);
                break;
            case 1:
                s.sel = std::make_unique<faiss::IDSelectorBatch>(
                        s.ids.size(), s.ids.data());
                break;
            case 2:
                s.bits.resize(20);
                for (uint8_t& byte : s.bits) {
                    byte = rng_();
                }
                s.sel = std::make_unique<faiss::IDSelectorBitmap>(
                        s.bits.size(), s.bits.data());
                break;
            case 3:
                s.inner = std::make_unique<faiss::IDSelectorRange>(from, to);
                s.sel = std::make_unique<faiss::IDSelectorNot>(s.inner.get());
                break;
#if FAISS_FLASH_FAISS_VERSION >= 11400
            case 5:
                s.inner = std::make_unique<faiss::IDSelectorRange>(from, to);
                s.other = std::make_unique<faiss::IDSelectorBatch>(
                        s.ids.size(), s.ids.data());
                s.sel = std::make_unique<faiss::IDSelectorXOr>(
                        s.inner.get(), s.other.get());
                break;
#endif
            case 4:
                if (below(8) == 0) {
                    s.sel = std::make_unique<faiss::IDSelectorAll>();
                    break;
                }
                [[fallthrough]];
            default:
                s.sel = std::make_unique<faiss::IDSelectorArray>(
                        s.ids.size(), s.ids.data());
        }
        return s;
    }

    void remove() {
        const Selector s = selector();
        const bool exact = !repeat_ids_ || !index_->has_copies;
        const idx_t before = index_->ntotal;
        const size_t distinct = model_.vectors.size();
        const size_t removed = index_->remove_ids(*s.sel);
        const size_t expected = model_.remove(*s.sel);
        log_ << "remove(" << expected << ") ";
        expect(exact ? removed == expected
                     : removed <= expected &&
                               removed >= distinct - model_.vectors.size(),
               "removed " + std::to_string(removed));
        expect(index_->ntotal == before - (idx_t)removed,
               "ntotal does not follow remove_ids");
        total_ = exact ? total_ - removed : index_->ntotal;
    }

    void update() {
        const std::vector<idx_t> ids = some_ids(1 + below(4), true);
        Rows r;
        for (idx_t id : ids) {
            r.ids.push_back(id);
            r.vectors.push_back(below(pool_.nvector));
            const float* x = &pool_.x[r.vectors.back() * d];
            r.x.insert(r.x.end(), x, x + d);
        }
        log_ << "update(" << ids.size() << ") ";
        auto call = [&] {
            index_->update_vectors(ids.size(), ids.data(), r.x.data());
        };
        if (index_->direct_map.no()) {
            expect_throw(call);
            return;
        }
        const bool exact = !repeat_ids_ || !index_->has_copies;
        call();
        for (size_t i = 0; i < ids.size(); i++) {
            total_ += 1 - (idx_t)model_.vectors[ids[i]].size();
            model_.vectors[ids[i]] = {r.vectors[i]};
        }
        total_ = exact ? total_ : index_->ntotal;
        expect_throw([&] {
            const idx_t unknown = (idx_t(1) << 61) + 5;
            index_->update_vectors(1, &unknown, pool_.x.data());
        });
    }

    void reset() {
        log_ << "reset ";
        index_->reset();
        model_.vectors.clear();
        array_size_ = 0;
        total_ = 0;
    }

    void change_map() {
        const auto type = (DirectMap::Type)below(3);
        log_ << "map(" << type << ") ";
        bool possible = true;
        if (type == DirectMap::Array && !array_map()) {
            for (auto& entry : model_.vectors) {
                // 0 ... ntotal - 1, each for one vector
                possible = possible && entry.first >= 0 &&
                        entry.first < index_->ntotal &&
                        (entry.second.size() == 1 || index_->has_copies);
            }
            if (possible) {
                array_size_ = index_->ntotal;
            }
        }
        auto call = [&] { index_->set_direct_map_type(type); };
        possible ? call() : expect_throw(call);
    }

    void check_counts() {
        expect(index_->ntotal == total_,
               "ntotal = " + std::to_string(index_->ntotal) + " instead of " +
                       std::to_string(total_));
        const size_t n = model_.size();
        expect(repeat_ids_ ? (size_t)total_ >= n : (size_t)total_ == n,
               "the model has lost count");
        expect(index_->has_copies || index_->ncopies() == n,
               "there are copies that has_copies denies");
        expect(repeat_ids_ || !index_->has_copies || index_->ncopies() > n,
               "has_copies, but there is none");
    }

    const Pool<T>& pool_;
    std::unique_ptr<T> index_;
    Model model_;
    const bool repeat_ids_;
    std::mt19937_64 rng_;
    std::ostringstream log_;
    size_t array_size_ = 0; // slots of an array map
    idx_t total_ = 0;       // what ntotal should be
};

} // namespace test
