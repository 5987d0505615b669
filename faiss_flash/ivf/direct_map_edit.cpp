#include <faiss_flash/ivf/direct_map_edit.h>

#include <algorithm>
#include <unordered_map>

namespace faiss_flash {

void DirectMapEdit::erase(idx_t id) {
    if (!map_.no()) {
        erased_.push_back(id);
    }
}

void DirectMapEdit::move(idx_t id, idx_t list, size_t from, size_t to) {
    if (!map_.no()) {
        moved_.push_back(
                {id,
                 (int64_t)faiss::lo_build(list, from),
                 (int64_t)faiss::lo_build(list, to)});
    }
}

void DirectMapEdit::set(idx_t id, int64_t place) {
    if (!map_.no()) {
        set_.push_back({id, place});
    }
}

void DirectMapEdit::apply() {
    if (map_.type == faiss::DirectMap::Array) {
        apply_to_array();
    } else if (map_.type == faiss::DirectMap::Hashtable) {
        apply_to_hashtable();
    }
}

void DirectMapEdit::apply_to_array() {
    size_t size = map_.array.size();
    for (const Set& s : set_) {
        size = std::max(size, (size_t)s.id + 1);
    }
    map_.array.resize(size, -1); // all that can throw
    auto slot = [&](idx_t id) {
        return id >= 0 && (size_t)id < size ? &map_.array[id] : nullptr;
    };
    for (idx_t id : erased_) {
        if (idx_t* place = slot(id)) {
            *place = -1;
        }
    }
    for (const Moved& m : moved_) {
        idx_t* place = slot(m.id);
        if (place && *place == m.from) {
            *place = m.to;
        }
    }
    for (const Set& s : set_) {
        map_.array[s.id] = s.place;
    }
}

void DirectMapEdit::apply_to_hashtable() {
    auto& table = map_.hashtable;
    // all that can throw comes first
    std::unordered_map<idx_t, idx_t> fresh;
    for (const Set& s : set_) {
        if (s.place >= 0) {
            fresh[s.id] = s.place;
        }
    }
    table.reserve(table.size() + fresh.size());

    for (idx_t id : erased_) {
        table.erase(id);
    }
    for (const Moved& m : moved_) {
        auto found = table.find(m.id);
        if (found != table.end() && found->second == m.from) {
            found->second = m.to;
        }
    }
    for (const auto& entry : fresh) {
        auto found = table.find(entry.first);
        if (found != table.end()) {
            found->second = entry.second;
        }
    }
    table.merge(fresh); // nodes change hands, nothing is allocated
}

int64_t place_of(const faiss::DirectMap& map, idx_t id) {
    if (map.type == faiss::DirectMap::Array) {
        return id >= 0 && (size_t)id < map.array.size() ? map.array[id] : -1;
    }
    auto found = map.hashtable.find(id);
    return found == map.hashtable.end() ? -1 : found->second;
}

idx_t next_id(const faiss::IndexIVF& index) {
    const faiss::DirectMap& map = index.direct_map;
    return map.type == faiss::DirectMap::Array ? (idx_t)map.array.size()
                                               : index.ntotal;
}

} // namespace faiss_flash
