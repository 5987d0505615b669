#include <faiss_flash/ivf/edit_lists.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <functional>
#include <numeric>
#include <unordered_set>
#include <vector>

#include <faiss_flash/ivf/list_journal.h>
#include <faiss_flash/ivf/vector_count.h>

namespace faiss_flash {

using ScopedCodes = faiss::InvertedLists::ScopedCodes;
using ScopedIds = faiss::InvertedLists::ScopedIds;

/*************************************************************
 * Moving
 *************************************************************/

namespace {

/// Append entries [begin, ...) of a list to the same list of `target`.
void append_from(
        const faiss::InvertedLists& source,
        size_t list,
        size_t begin,
        idx_t add_id,
        faiss::InvertedLists& target) {
    const size_t n = source.list_size(list) - begin;
    if (n == 0) {
        return;
    }
    const ScopedIds source_ids(&source, list);
    ScopedCodes codes(&source, list);
    std::vector<idx_t> ids(n);
    for (size_t i = 0; i < n; i++) {
        ids[i] = source_ids[begin + i] + add_id;
    }
    target.add_entries(
            list, n, ids.data(), codes.get() + begin * source.code_size);
}

} // namespace

void move_entries(
        faiss::IndexIVF& index,
        faiss::IndexIVF& other,
        idx_t add_id) {
    faiss::InvertedLists& to = *index.invlists;
    faiss::InvertedLists& from = *other.invlists;
    std::vector<size_t> old_sizes; // of the lists that have begun to move
    try {
        for (size_t list = 0; list < index.nlist; list++) {
            old_sizes.push_back(to.list_size(list));
            append_from(from, list, 0, add_id, to);
            from.resize(list, 0);
        }
    } catch (...) {
        while (!old_sizes.empty()) {
            const size_t list = old_sizes.size() - 1, kept = old_sizes.back();
            old_sizes.pop_back();
            try {
                if (from.list_size(list) == 0) {
                    append_from(to, list, kept, -add_id, from);
                }
                if (to.list_size(list) > kept) {
                    to.resize(list, kept);
                }
            } catch (...) {
                // neither forth nor back: the first error is the one to
                // report
            }
        }
        throw;
    }
    index.ntotal += other.ntotal;
    other.ntotal = 0;
}

/*************************************************************
 * Copying
 *************************************************************/

namespace {

/// Whether a list's entry at an offset is wanted.
using IsWanted = std::function<bool(size_t list, size_t offset, idx_t id)>;

void check_bounds(bool ok, int type, idx_t a1, idx_t a2, const char* rule) {
    FAISS_THROW_IF_NOT_FMT(
            ok,
            "copy_subset_to: subset type %d with a1 = %" PRId64
            ", a2 = %" PRId64 " should have %s",
            type,
            (int64_t)a1,
            (int64_t)a2,
            rule);
}

/// Numbers among a list's first copies.
struct Range {
    size_t begin, end;
};

/** How many of each list's entries are among the first `a` of all, when
 * entry j of a list of n comes at (j + ½)/n: every list in proportion to its
 * length (Webster's method). More for a larger `a`, in every list, so that
 * parts between two numbers are disjoint; FAISS's rounding may take an entry
 * into two parts.
 */
std::vector<size_t> among_first(const std::vector<size_t>& sizes, size_t a) {
    auto before = [](size_t n, double time) {
        const double count = std::ceil((double)n * time - 0.5);
        return count <= 0 ? 0 : std::min(n, (size_t)count);
    };
    auto all_before = [&](double time) {
        size_t count = 0;
        for (size_t n : sizes) {
            count += before(n, time);
        }
        return count;
    };
    // the last time by which no more than `a` came
    double time = 0, later = 2;
    while (std::nextafter(time, later) < later) {
        const double middle = time + (later - time) / 2;
        (all_before(middle) <= a ? time : later) = middle;
    }
    // of those that come at that very time, the lowest lists' first
    size_t left = a - std::min(a, all_before(time));
    std::vector<size_t> counts;
    for (size_t n : sizes) {
        size_t count = before(n, time);
        if (left > 0 && count < before(n, later)) {
            count++;
            left--;
        }
        counts.push_back(count);
    }
    return counts;
}

/// What types 2 and 3 take of each list; sizes: numbers of first copies.
std::vector<Range> ranges_of_share(
        const std::vector<size_t>& sizes,
        int type,
        size_t a1,
        size_t a2,
        size_t ntotal) {
    std::vector<Range> ranges;
    if (type == 3) {
        for (size_t n : sizes) {
            ranges.push_back({n * a2 / a1, n * (a2 + 1) / a1});
        }
        return ranges;
    }
    // ids of several vectors, or vectors in no list, make a difference
    const size_t all = std::accumulate(sizes.begin(), sizes.end(), size_t(0));
    const auto begins = among_first(sizes, a1 * all / ntotal);
    const auto ends = among_first(sizes, a2 * all / ntotal);
    for (size_t list = 0; list < sizes.size(); list++) {
        ranges.push_back({begins[list], ends[list]});
    }
    return ranges;
}

/// Of each list the ids whose first copy it has.
std::vector<std::vector<idx_t>> first_copies(const faiss::IndexIVF& index) {
    std::unordered_set<idx_t> met;
    std::vector<std::vector<idx_t>> first(index.nlist);
    for (size_t list = 0; list < index.nlist; list++) {
        const ScopedIds ids(index.invlists, list);
        for (size_t i = 0; i < index.invlists->list_size(list); i++) {
            if (met.insert(ids[i]).second) {
                first[list].push_back(ids[i]);
            }
        }
    }
    return first;
}

IsWanted wanted_entries(
        const faiss::IndexIVF& index,
        bool has_copies,
        int type,
        idx_t a1,
        idx_t a2) {
    switch (type) {
        case 0:
            return [=](size_t, size_t, idx_t id) {
                return a1 <= id && id < a2;
            };
        case 1:
            check_bounds(a1 != 0, type, a1, a2, "a1 other than 0");
            return [=](size_t, size_t, idx_t id) { return id % a1 == a2; };
        case 2:
            check_bounds(
                    0 <= a1 && a1 <= a2 && a2 <= index.ntotal,
                    type,
                    a1,
                    a2,
                    "0 <= a1 <= a2 <= ntotal");
            break;
        case 3:
            check_bounds(0 <= a2 && a2 < a1, type, a1, a2, "0 <= a2 < a1");
            break;
        case 4:
            check_bounds(
                    0 <= a1 && a1 <= a2 && a2 <= (idx_t)index.nlist,
                    type,
                    a1,
                    a2,
                    "0 <= a1 <= a2 <= nlist");
            return [=](size_t list, size_t, idx_t) {
                return a1 <= (idx_t)list && (idx_t)list < a2;
            };
        default:
            FAISS_THROW_FMT(
                    "copy_subset_to: subset type %d should be 0 to 4", type);
    }
    if (index.ntotal == 0) {
        return [](size_t, size_t, idx_t) { return false; };
    }
    std::vector<size_t> sizes;
    if (!has_copies) {
        for (size_t list = 0; list < index.nlist; list++) {
            sizes.push_back(index.invlists->list_size(list));
        }
        return [ranges = ranges_of_share(sizes, type, a1, a2, index.ntotal)](
                       size_t list, size_t offset, idx_t) {
            return ranges[list].begin <= offset && offset < ranges[list].end;
        };
    }
    const auto first = first_copies(index);
    for (auto& ids : first) {
        sizes.push_back(ids.size());
    }
    const auto ranges = ranges_of_share(sizes, type, a1, a2, index.ntotal);
    std::unordered_set<idx_t> taken;
    for (size_t list = 0; list < index.nlist; list++) {
        const auto begin = first[list].begin();
        taken.insert(begin + ranges[list].begin, begin + ranges[list].end);
    }
    return [taken = std::move(taken)](size_t, size_t, idx_t id) {
        return taken.count(id) > 0;
    };
}

} // namespace

size_t copy_vectors(
        const faiss::IndexIVF& index,
        bool has_copies,
        faiss::IndexIVF& target,
        int subset_type,
        idx_t a1,
        idx_t a2) {
    FAISS_THROW_IF_NOT_MSG(
            &target != &index, "copy_subset_to: other is the index itself");
    FAISS_THROW_IF_NOT_FMT(
            index.nlist == target.nlist && index.code_size == target.code_size,
            "copy_subset_to: other has nlist = %zd, code_size = %zd and "
            "should have %zd, %zd",
            target.nlist,
            target.code_size,
            index.nlist,
            index.code_size);
    FAISS_THROW_IF_NOT_MSG(
            target.direct_map.no(),
            "copy_subset_to: other has a direct map, which would not know "
            "the copied vectors");
    const IsWanted is_wanted =
            wanted_entries(index, has_copies, subset_type, a1, a2);

    const size_t bytes = index.code_size;
    ListJournal journal(*target.invlists);
    VectorCount count(has_copies);
    std::vector<idx_t> ids;
    std::vector<uint8_t> codes;
    for (size_t list = 0; list < index.nlist; list++) {
        const size_t n = index.invlists->list_size(list);
        if (n == 0) {
            continue;
        }
        ids.clear();
        codes.clear();
        const ScopedIds list_ids(index.invlists, list);
        ScopedCodes list_codes(index.invlists, list);
        for (size_t i = 0; i < n; i++) {
            if (is_wanted(list, i, list_ids[i])) {
                const uint8_t* code = list_codes.get() + i * bytes;
                ids.push_back(list_ids[i]);
                codes.insert(codes.end(), code, code + bytes);
                count.add(list, list_ids[i]);
            }
        }
        if (!ids.empty()) {
            journal.will_append(list);
            target.invlists->add_entries(
                    list, ids.size(), ids.data(), codes.data());
        }
    }
    target.ntotal += count.vectors();
    journal.commit();
    return count.vectors();
}

} // namespace faiss_flash
