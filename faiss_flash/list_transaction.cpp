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
          ids_(ids),
          first_id_(next_id(index)),
          map_(index.direct_map),
          journal_(*index.invlists) {
    if (!index.direct_map.no()) {
        places_.assign(n, -1);
    }
}

idx_t ListTransaction::id_of(idx_t row) const {
    return ids_ ? ids_[row] : first_id_ + row;
}

void ListTransaction::erase(const FoundEntries& found) {
    FAISS_THROW_IF_NOT(n_stored_ == 0);
    std::vector<ListJournal::Move> moves;
    for (const auto& of_list : found.lists) {
        moves.clear();
        journal_.erase(of_list.list, of_list.offsets, moves);
        for (idx_t id : of_list.ids) {
            map_.erase(id);
        }
        for (const auto& move : moves) {
            map_.move(move.id, of_list.list, move.from, move.to);
        }
    }
    n_erased_ += found.vectors;
}

void ListTransaction::store(
        idx_t count,
        const float* x,
        int m,
        const idx_t* lists) {
    collect_entries(count, m, lists);
    const size_t d = index_.d;
    const size_t n = entries_.size();
    std::vector<float> vectors(n * d);
    std::vector<idx_t> list_nos(n);
    for (size_t e = 0; e < n; e++) {
        memcpy(vectors.data() + e * d,
               x + entries_[e].row * d,
               d * sizeof(float));
        list_nos[e] = entries_[e].list;
    }
    std::vector<uint8_t> codes(n * index_.code_size + 1);
    if (n > 0) {
        index_.encode_vectors(n, vectors.data(), list_nos.data(), codes.data());
        append(codes.data());
    }
    n_stored_ += count;
}

void ListTransaction::store_codes(
        idx_t count,
        const uint8_t* codes,
        const idx_t* lists) {
    collect_entries(count, 1, lists);
    const size_t bytes = index_.code_size;
    std::vector<uint8_t> sorted(entries_.size() * bytes + 1);
    for (size_t e = 0; e < entries_.size(); e++) {
        memcpy(sorted.data() + e * bytes,
               codes + entries_[e].row * bytes,
               bytes);
    }
    append(sorted.data());
    n_stored_ += count;
}

void ListTransaction::collect_entries(idx_t count, int m, const idx_t* lists) {
    FAISS_THROW_IF_NOT(n_stored_ + count <= n_);
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
                entries_.push_back({list, row, entries_.size() == before});
            }
        }
        has_copies_ = has_copies_ || entries_.size() > before + 1;
    }
    std::sort(
            entries_.begin(),
            entries_.end(),
            [](const Entry& a, const Entry& b) {
                return a.list != b.list ? a.list < b.list : a.row < b.row;
            });
}

void ListTransaction::append(const uint8_t* codes) {
    // entries [begins[r], begins[r + 1]) belong to one list
    std::vector<size_t> begins;
    std::vector<idx_t> ids(entries_.size());
    for (size_t e = 0; e < entries_.size(); e++) {
        if (e == 0 || entries_[e].list != entries_[e - 1].list) {
            begins.push_back(e);
            journal_.will_append(entries_[e].list);
        }
        ids[e] = id_of(n_stored_ + entries_[e].row);
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
                // one thread per row
                if (entries_[e].is_first) {
                    places_[n_stored_ + entries_[e].row] =
                            faiss::lo_build(list, offset + e - begin);
                }
            }
        });
    }
    exceptions.rethrow();
}

void ListTransaction::commit() {
    FAISS_THROW_IF_NOT(n_stored_ == n_);
    for (size_t row = 0; row < places_.size(); row++) {
        map_.set(id_of(row), places_[row]);
    }
    map_.apply();
    index_.ntotal += n_ - n_erased_;
    journal_.commit();
}

} // namespace faiss_flash
