#include <faiss_flash/ivf/find_duplicates.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <vector>

namespace faiss_flash {

size_t find_equal_codes(
        const faiss::IndexIVF& index,
        bool has_copies,
        idx_t* ids,
        size_t* lims) {
    const size_t bytes = index.code_size;
    std::unordered_set<idx_t> met;
    std::vector<size_t> order; // offsets, sorted by code
    size_t ngroup = 0;
    lims[0] = 0;
    for (size_t list = 0; list < index.nlist; list++) {
        const size_t n = index.invlists->list_size(list);
        if (n == 0) {
            continue;
        }
        const faiss::InvertedLists::ScopedIds list_ids(index.invlists, list);
        faiss::InvertedLists::ScopedCodes codes(index.invlists, list);
        order.clear();
        for (size_t i = 0; i < n; i++) {
            if (!has_copies || met.insert(list_ids[i]).second) {
                order.push_back(i);
            }
        }
        auto compare = [&](size_t a, size_t b) {
            return memcmp(
                    codes.get() + a * bytes, codes.get() + b * bytes, bytes);
        };
        std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
            const int difference = compare(a, b);
            return difference ? difference < 0 : a < b;
        });
        for (size_t begin = 0, end; begin < order.size(); begin = end) {
            end = begin + 1;
            while (end < order.size() &&
                   compare(order[begin], order[end]) == 0) {
                end++;
            }
            if (end - begin >= 2) {
                ngroup++;
                lims[ngroup] = lims[ngroup - 1];
                for (size_t i = begin; i < end; i++) {
                    ids[lims[ngroup]++] = list_ids[order[i]];
                }
            }
        }
    }
    return ngroup;
}

} // namespace faiss_flash
