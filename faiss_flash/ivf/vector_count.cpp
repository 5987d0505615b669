#include <faiss_flash/ivf/vector_count.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace faiss_flash {

size_t count_distinct_ids(const faiss::InvertedLists& lists) {
    size_t entries = 0;
    idx_t lowest = std::numeric_limits<idx_t>::max(), highest = -1;
    for_each_id(lists, [&](idx_t id) {
        entries++;
        lowest = std::min(lowest, id);
        highest = std::max(highest, id);
    });
    if (entries == 0) {
        return 0;
    }
    if (lowest >= 0 && (size_t)highest / 64 < entries) {
        std::vector<bool> met(highest + 1);
        size_t distinct = 0;
        for_each_id(lists, [&](idx_t id) {
            distinct += !met[id];
            met[id] = true;
        });
        return distinct;
    }
    std::vector<idx_t> ids;
    ids.reserve(entries);
    for_each_id(lists, [&](idx_t id) { ids.push_back(id); });
    std::sort(ids.begin(), ids.end());
    return std::unique(ids.begin(), ids.end()) - ids.begin();
}

idx_t largest_id(const faiss::InvertedLists& lists) {
    idx_t largest = -1;
    for_each_id(lists, [&](idx_t id) { largest = std::max(largest, id); });
    return largest;
}

} // namespace faiss_flash
