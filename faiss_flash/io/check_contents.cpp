#include <faiss_flash/io/check_contents.h>

#include <algorithm>
#include <cinttypes>
#include <vector>

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>

#include <faiss_flash/check_input.h>
#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

namespace {

/// Every neighbor of a level has that level itself.
void check_graph(const faiss::IndexHNSW& index) {
    const faiss::HNSW& graph = index.hnsw;
    const size_t n = index.ntotal;
    const auto& per_level = graph.cum_nneighbor_per_level;
    const char* broken = "the graph of an HNSW index leads outside of it";
    FAISS_THROW_IF_NOT_FMT(
            index.storage && per_level.size() >= 2 && per_level[0] == 0 &&
                    std::is_sorted(per_level.begin(), per_level.end()) &&
                    per_level.back() <= (1 << 16) &&
                    !graph.assign_probas.empty() &&
                    per_level.size() > graph.assign_probas.size() &&
                    graph.levels.size() == n && graph.offsets.size() == n + 1 &&
                    graph.offsets[0] == 0 &&
                    graph.offsets[n] == graph.neighbors.size(),
            "%s",
            broken);
    const int most = std::max<int64_t>(n, 1 << 16); // allocated by searches
    FAISS_THROW_IF_NOT_MSG(
            graph.efSearch >= 1 && graph.efSearch <= most &&
                    graph.efConstruction >= 1 && graph.efConstruction <= most,
            "efSearch or efConstruction of an HNSW index is out of range");
    for (size_t i = 0; i < n; i++) {
        const int levels = graph.levels[i];
        FAISS_THROW_IF_NOT_FMT(
                levels >= 1 && (size_t)levels < per_level.size() &&
                        graph.offsets[i + 1] - graph.offsets[i] ==
                                (size_t)per_level[levels],
                "%s",
                broken);
    }
    for (size_t i = 0; i < n; i++) {
        for (int level = 0; level < graph.levels[i]; level++) {
            for (int j = per_level[level]; j < per_level[level + 1]; j++) {
                const int64_t to = graph.neighbors[graph.offsets[i] + j];
                FAISS_THROW_IF_NOT_FMT(
                        to >= -1 && to < (int64_t)n &&
                                (to < 0 || graph.levels[to] > level),
                        "%s",
                        broken);
            }
        }
    }
    const int64_t entry = graph.entry_point;
    FAISS_THROW_IF_NOT_FMT(
            n == 0 ? entry == -1
                   : entry >= 0 && entry < (int64_t)n && graph.max_level >= 0 &&
                            graph.levels[entry] > graph.max_level,
            "%s",
            broken);
}

/// Codes of residuals need every centroid; where FAISS asks for them an
/// exception would end the process.
void check_centroids(const faiss::IndexIVF& index) {
    const faiss::Index& quantizer = *index.quantizer;
    if (!dynamic_cast<const faiss::IndexFlat*>(&quantizer) &&
        dynamic_cast<const faiss::IndexIVFFlat*>(&index)) {
        return;
    }
    std::vector<float> row(quantizer.d);
    for (idx_t i = 0; i < quantizer.ntotal; i++) {
        quantizer.reconstruct(i, row.data());
        check_finite("a centroid", 1, quantizer.d, row.data());
    }
}

void check_place(const faiss::InvertedLists& lists, idx_t id, idx_t place) {
    const size_t list = faiss::lo_listno(place);
    const size_t offset = faiss::lo_offset(place);
    FAISS_THROW_IF_NOT_FMT(
            list < lists.nlist && offset < lists.list_size(list) &&
                    lists.get_single_id(list, offset) == id,
            "the direct map leads id %" PRId64 " to list %zd, offset %zd",
            (int64_t)id,
            list,
            offset);
}

/// Which ids an index may hold.
struct Ids {
    /// at least 0 and below this; −1: any
    idx_t below = -1;
    /// each of them, and in one list no more than once: what
    /// IndexIDMap::remove_ids takes for granted, or else ends the process
    bool all = false;
};

void check_ids(const faiss::InvertedLists& lists, const Ids& expected) {
    std::vector<bool> met(expected.all ? expected.below : 0);
    std::vector<idx_t> sorted;
    for (size_t list = 0; list < lists.nlist; list++) {
        const size_t size = lists.list_size(list);
        const faiss::InvertedLists::ScopedIds ids(&lists, list);
        for (size_t i = 0; i < size; i++) {
            FAISS_THROW_IF_NOT_FMT(
                    ids[i] >= 0 && ids[i] < expected.below,
                    "id %" PRId64 " should be at least 0 and below %" PRId64,
                    (int64_t)ids[i],
                    (int64_t)expected.below);
            if (expected.all) {
                met[ids[i]] = true;
                sorted.push_back(ids[i]);
            }
        }
        std::sort(sorted.begin(), sorted.end());
        FAISS_THROW_IF_NOT_FMT(
                std::adjacent_find(sorted.begin(), sorted.end()) ==
                        sorted.end(),
                "list %zd holds an id twice",
                list);
        sorted.clear();
    }
    FAISS_THROW_IF_NOT_MSG(
            std::find(met.begin(), met.end(), false) == met.end(),
            "an IndexIDMap has an id for a vector that is not there");
}

/// It leads from every id in the lists to an entry of that id, and from
/// nothing else.
void check_direct_map(
        const faiss::DirectMap& map,
        const faiss::InvertedLists& lists) {
    const bool is_array = map.type == faiss::DirectMap::Array;
    FAISS_THROW_IF_NOT_MSG(
            (is_array || map.array.empty()) &&
                    (map.type == faiss::DirectMap::Hashtable ||
                     map.hashtable.empty()),
            "a direct map of another type than it says");
    for (size_t id = 0; id < map.array.size(); id++) {
        if (map.array[id] != -1) {
            check_place(lists, id, map.array[id]);
        }
    }
    for (const auto& entry : map.hashtable) {
        check_place(lists, entry.first, entry.second);
    }
    for (size_t list = 0; list < lists.nlist && !map.no(); list++) {
        const size_t size = lists.list_size(list);
        const faiss::InvertedLists::ScopedIds ids(&lists, list);
        for (size_t i = 0; i < size; i++) {
            FAISS_THROW_IF_NOT_FMT(
                    is_array ? ids[i] >= 0 &&
                                    (size_t)ids[i] < map.array.size() &&
                                    map.array[ids[i]] != -1
                             : map.hashtable.count(ids[i]) > 0,
                    "the direct map does not know id %" PRId64,
                    (int64_t)ids[i]);
        }
    }
}

void check_ivf(const faiss::IndexIVF& index, const Ids& expected) {
    const faiss::InvertedLists& lists = *index.invlists;
    check_centroids(index);
    check_direct_map(index.direct_map, lists);
    if (expected.below >= 0) {
        check_ids(lists, expected);
    }
}

void check(const faiss::Index& index, const Ids& ids) {
    if (auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
        FAISS_THROW_IF_NOT_MSG(
                ivf->quantizer && ivf->invlists,
                "an IVF index without quantizer or inverted lists");
        // first the quantizer, which is then asked for its centroids; what it
        // finds are list numbers
        check(*ivf->quantizer, {(idx_t)ivf->nlist});
        check_ivf(*ivf, ids);
    } else if (auto* hnsw = dynamic_cast<const faiss::IndexHNSW*>(&index)) {
        check_graph(*hnsw);
        check(*hnsw->storage, {});
    } else if (
            auto* transform =
                    dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
        check(*transform->index, ids);
    } else if (auto* map = dynamic_cast<const faiss::IndexIDMap*>(&index)) {
        FAISS_THROW_IF_NOT_MSG(
                map->id_map.size() == (size_t)map->ntotal,
                "an IndexIDMap whose id_map is not as long as ntotal");
        check(*map->index, {map->ntotal, true});
    } else if (auto* refine = dynamic_cast<const faiss::IndexRefine*>(&index)) {
        check(*refine->base_index, {refine->ntotal, ids.all});
        check(*refine->refine_index, {});
    }
}

} // namespace

void check_contents(const faiss::Index& index) {
    check(index, {});
}

} // namespace faiss_flash
