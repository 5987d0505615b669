#include <faiss_flash/list_transaction.h>

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include <faiss_flash/engine/chunks.h>

namespace faiss_flash {

ListTransaction::ListTransaction(
        faiss::IndexIVF& index,
        idx_t n,
        const idx_t* ids)
        : index_(index),
          n_(n),
          ids_(ids) {
    index.direct_map.check_can_add(ids);
    if (index.direct_map.type != faiss::DirectMap::NoMap) {
        places_.assign(n, -1);
    }
}

ListTransaction::~ListTransaction() {
    if (committed_) {
        return;
    }
    for (auto old = old_sizes_.rbegin(); old != old_sizes_.rend(); ++old) {
        try {
            if (index_.invlists->list_size(old->list) > old->size) {
                index_.invlists->resize(old->list, old->size);
            }
        } catch (...) {
            // lists that can be neither written nor cut: nothing is left to
            // try, and the first error is the one to report
        }
    }
}

idx_t ListTransaction::id_of(idx_t row) const {
    return ids_ ? ids_[row] : index_.ntotal + row;
}

void ListTransaction::store(
        idx_t count,
        const float* x,
        int m,
        const idx_t* lists) {
    FAISS_THROW_IF_NOT(n_stored_ + count <= n_);
    collect_entries(count, m, lists);

    const size_t d = index_.d;
    const size_t n = entries_.size();
    std::vector<float> vectors(n * d);
    std::vector<idx_t> list_nos(n), ids(n);
    for (size_t e = 0; e < n; e++) {
        memcpy(vectors.data() + e * d,
               x + entries_[e].row * d,
               d * sizeof(float));
        list_nos[e] = entries_[e].list;
        ids[e] = id_of(n_stored_ + entries_[e].row);
    }
    std::vector<uint8_t> codes(n * index_.code_size + 1);
    if (n > 0) {
        index_.encode_vectors(n, vectors.data(), list_nos.data(), codes.data());
        append(ids, codes.data());
    }
    n_stored_ += count;
}

void ListTransaction::collect_entries(idx_t count, int m, const idx_t* lists) {
    entries_.clear();
    for (idx_t row = 0; row < count; row++) {
        const size_t before = entries_.size();
        for (int rank = 0; rank < m; rank++) {
            const idx_t list = lists[row * m + rank];
            FAISS_THROW_IF_NOT_FMT(
                    list < (idx_t)index_.nlist,
                    "list %" PRId64 " chosen for row %" PRId64
                    " should be below nlist = %zd",
                    (int64_t)list,
                    (int64_t)(n_stored_ + row),
                    index_.nlist);
            if (list >= 0) {
                entries_.push_back({list, row});
            }
        }
        if (entries_.size() > before + 1) {
            has_copies_ = true;
            FAISS_THROW_IF_NOT_FMT(
                    places_.empty(),
                    "row %" PRId64
                    " goes to %zd lists, which a direct map cannot hold: set "
                    "policy to AssignmentPolicy::nearest() or call "
                    "set_direct_map_type(DirectMap::NoMap)",
                    (int64_t)(n_stored_ + row),
                    entries_.size() - before);
        }
    }
    std::sort(
            entries_.begin(),
            entries_.end(),
            [](const Entry& a, const Entry& b) {
                return a.list != b.list ? a.list < b.list : a.row < b.row;
            });
}

void ListTransaction::append(
        const std::vector<idx_t>& ids,
        const uint8_t* codes) {
    // entries [begins[r], begins[r + 1]) belong to one list
    std::vector<size_t> begins;
    for (size_t e = 0; e < entries_.size(); e++) {
        if (e == 0 || entries_[e].list != entries_[e - 1].list) {
            begins.push_back(e);
            const idx_t list = entries_[e].list;
            old_sizes_.push_back({list, index_.invlists->list_size(list)});
        }
    }
    const int64_t nrun = begins.size();
    begins.push_back(entries_.size());

    OmpExceptions exceptions;
    // lists are independent of each other, as in FAISS's add_core
#pragma omp parallel for schedule(dynamic) if (nrun > 1)
    for (int64_t r = 0; r < nrun; r++) {
        exceptions.run([&] {
            const size_t begin = begins[r];
            const idx_t list = entries_[begin].list;
            const size_t offset = index_.invlists->add_entries(
                    list,
                    begins[r + 1] - begin,
                    ids.data() + begin,
                    codes + begin * index_.code_size);
            for (size_t e = begin; e < begins[r + 1] && !places_.empty(); e++) {
                places_[n_stored_ + entries_[e].row] =
                        faiss::lo_build(list, offset + e - begin);
            }
        });
    }
    exceptions.rethrow();
}

void ListTransaction::commit() {
    FAISS_THROW_IF_NOT(n_stored_ == n_);
    if (!places_.empty()) {
        const bool array = index_.direct_map.type == faiss::DirectMap::Array;
        std::vector<idx_t> ids(n_);
        for (idx_t row = 0; row < n_; row++) {
            ids[row] = id_of(row);
        }
        // an array's ids go without saying, a hash table's have to be given
        faiss::DirectMapAdd direct_map_add(
                index_.direct_map, n_, array ? nullptr : ids.data());
        for (idx_t row = 0; row < n_; row++) {
            const bool stored = places_[row] >= 0;
            direct_map_add.add(
                    row,
                    stored ? faiss::lo_listno(places_[row]) : -1,
                    stored ? faiss::lo_offset(places_[row]) : 0);
        }
    }
    index_.ntotal += n_;
    committed_ = true;
}

} // namespace faiss_flash
