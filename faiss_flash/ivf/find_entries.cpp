#include <faiss_flash/ivf/find_entries.h>

#include <algorithm>
#include <unordered_set>

#include <faiss_flash/engine/chunks.h>
#include <faiss_flash/ivf/direct_map_edit.h>
#include <faiss_flash/ivf/vector_count.h>

namespace faiss_flash {

namespace {

/// Whether the selector is a set of ids; these go into `ids`.
bool ids_of(const faiss::IDSelector& sel, std::unordered_set<idx_t>& ids) {
    if (auto* array = dynamic_cast<const faiss::IDSelectorArray*>(&sel)) {
        ids.insert(array->ids, array->ids + array->n);
        return true;
    }
    if (auto* batch = dynamic_cast<const faiss::IDSelectorBatch*>(&sel)) {
        ids.insert(batch->set.begin(), batch->set.end());
        return true;
    }
    return false;
}

/// Whether the direct map knows every entry: one entry per id.
bool map_is_complete(const faiss::IndexIVF& index, bool has_copies) {
    switch (index.direct_map.type) {
        case faiss::DirectMap::Array:
            return !has_copies;
        case faiss::DirectMap::Hashtable:
            // several entries may have one id even without copies
            return index.direct_map.hashtable.size() ==
                    index.invlists->compute_ntotal();
        default:
            return false;
    }
}

FoundEntries look_up(
        const faiss::IndexIVF& index,
        const std::unordered_set<idx_t>& ids) {
    struct Place {
        int64_t place; // orders by list, then offset
        idx_t id;
    };
    std::vector<Place> places;
    for (idx_t id : ids) {
        const int64_t place = place_of(index.direct_map, id);
        if (place >= 0) {
            places.push_back({place, id});
        }
    }
    std::sort(places.begin(), places.end(), [](auto& a, auto& b) {
        return a.place < b.place;
    });
    FoundEntries found;
    for (const Place& p : places) {
        const idx_t list = faiss::lo_listno(p.place);
        if (found.lists.empty() || found.lists.back().list != list) {
            found.lists.push_back({list, {}, {}});
        }
        found.lists.back().offsets.push_back(faiss::lo_offset(p.place));
        found.lists.back().ids.push_back(p.id);
    }
    found.vectors = places.size();
    return found;
}

template <class IsMember>
FoundEntries scan(
        const faiss::IndexIVF& index,
        bool has_copies,
        const IsMember& is_member) {
    const faiss::InvertedLists& lists = *index.invlists;
    std::vector<FoundEntries::OfList> found(index.nlist);
    OmpExceptions exceptions;
#pragma omp parallel for schedule(dynamic)
    for (int64_t list = 0; list < (int64_t)index.nlist; list++) {
        exceptions.run([&] {
            found[list].list = list;
            const size_t n = lists.list_size(list);
            if (n == 0) {
                return;
            }
            const faiss::InvertedLists::ScopedIds ids(&lists, list);
            for (size_t i = 0; i < n; i++) {
                if (is_member(ids[i])) {
                    found[list].offsets.push_back(i);
                    found[list].ids.push_back(ids[i]);
                }
            }
        });
    }
    exceptions.rethrow();

    FoundEntries result;
    VectorCount count(has_copies);
    for (auto& of_list : found) {
        for (idx_t id : of_list.ids) {
            count.add(of_list.list, id);
        }
        if (!of_list.offsets.empty()) {
            result.lists.push_back(std::move(of_list));
        }
    }
    result.vectors = count.vectors();
    return result;
}

} // namespace

FoundEntries find_entries(
        const faiss::IndexIVF& index,
        bool has_copies,
        const faiss::IDSelector& sel) {
    std::unordered_set<idx_t> ids;
    if (!ids_of(sel, ids)) {
        return scan(
                index, has_copies, [&](idx_t id) { return sel.is_member(id); });
    }
    if (map_is_complete(index, has_copies)) {
        return look_up(index, ids);
    }
    return scan(index, has_copies, [&](idx_t id) { return ids.count(id) > 0; });
}

} // namespace faiss_flash
