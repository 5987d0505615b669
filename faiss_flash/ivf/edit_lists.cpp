#include <faiss_flash/ivf/edit_lists.h>

#include <cinttypes>
#include <functional>
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

/// The ranges of first copies that types 2 and 3 take of each list: numbers
/// among the list's first copies.
class Share {
   public:
    Share(int type, idx_t a1, idx_t a2, size_t ntotal)
            : type_(type),
              a1_(a1),
              a2_(a2),
              ntotal_(ntotal) {}

    struct Range {
        size_t begin, end;
    };

    /// Lists have to come in order; n: the list's first copies.
    Range of_next_list(size_t n) {
        if (type_ == 3) {
            return {n * a2_ / a1_, n * (a2_ + 1) / a1_};
        }
        const size_t before = passed_;
        passed_ += n;
        return {passed_ * a1_ / ntotal_ - before * a1_ / ntotal_,
                passed_ * a2_ / ntotal_ - before * a2_ / ntotal_};
    }

   private:
    const int type_;
    const size_t a1_, a2_, ntotal_;
    size_t passed_ = 0;
};

/// Ids of the vectors whose first copies the share takes.
std::unordered_set<idx_t> ids_in_share(
        const faiss::IndexIVF& index,
        Share share) {
    std::unordered_set<idx_t> met, taken;
    std::vector<idx_t> first;
    for (size_t list = 0; list < index.nlist; list++) {
        const ScopedIds ids(index.invlists, list);
        first.clear();
        for (size_t i = 0; i < index.invlists->list_size(list); i++) {
            if (met.insert(ids[i]).second) {
                first.push_back(ids[i]);
            }
        }
        const Share::Range range = share.of_next_list(first.size());
        taken.insert(first.begin() + range.begin, first.begin() + range.end);
    }
    return taken;
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
    Share share(type, a1, a2, index.ntotal);
    if (has_copies) {
        return [taken = ids_in_share(index, share)](size_t, size_t, idx_t id) {
            return taken.count(id) > 0;
        };
    }
    std::vector<Share::Range> ranges;
    for (size_t list = 0; list < index.nlist; list++) {
        ranges.push_back(share.of_next_list(index.invlists->list_size(list)));
    }
    return [ranges = std::move(ranges)](size_t list, size_t offset, idx_t) {
        return ranges[list].begin <= offset && offset < ranges[list].end;
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
