#include <faiss_flash/ivf/list_journal.h>

#include <algorithm>
#include <cstring>

namespace faiss_flash {

ListJournal::~ListJournal() {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
        try {
            undo(*step);
        } catch (...) {
            // lists that can be neither changed nor put back: nothing is left
            // to try, and the first error is the one to report
        }
    }
}

ListJournal::Entries ListJournal::read(idx_t list, size_t begin, size_t end)
        const {
    Entries entries;
    if (begin == end) {
        return entries;
    }
    faiss::InvertedLists::ScopedIds ids(&lists_, list);
    faiss::InvertedLists::ScopedCodes codes(&lists_, list);
    const size_t bytes = lists_.code_size;
    entries.ids.assign(ids.get() + begin, ids.get() + end);
    entries.codes.assign(
            codes.get() + begin * bytes, codes.get() + end * bytes);
    return entries;
}

void ListJournal::will_append(idx_t list) {
    steps_.push_back({list, lists_.list_size(list), {}, {}, {}});
}

void ListJournal::erase(
        idx_t list,
        const std::vector<size_t>& offsets,
        std::vector<Move>& moves) {
    if (offsets.empty()) {
        return;
    }
    const size_t bytes = lists_.code_size;
    const size_t size = lists_.list_size(list);
    Step step;
    step.list = list;
    step.kept = size - offsets.size();
    step.tail = read(list, step.kept, size);

    // gaps among the entries that stay; the rest of the offsets is cut off
    const auto gaps_end =
            std::lower_bound(offsets.begin(), offsets.end(), step.kept);
    step.gaps.assign(offsets.begin(), gaps_end);
    step.gap_entries.ids.reserve(step.gaps.size());
    step.gap_entries.codes.reserve(step.gaps.size() * bytes);
    std::vector<size_t> sources;
    auto erased = offsets.rbegin();
    for (size_t from = size; sources.size() < step.gaps.size();) {
        from--;
        if (erased != offsets.rend() && *erased == from) {
            ++erased;
        } else {
            sources.push_back(from);
        }
    }
    {
        faiss::InvertedLists::ScopedIds ids(&lists_, list);
        faiss::InvertedLists::ScopedCodes codes(&lists_, list);
        for (size_t gap : step.gaps) {
            const uint8_t* code = codes.get() + gap * bytes;
            step.gap_entries.ids.push_back(ids[gap]);
            step.gap_entries.codes.insert(
                    step.gap_entries.codes.end(), code, code + bytes);
        }
    }
    moves.reserve(moves.size() + sources.size());
    steps_.push_back(std::move(step));

    const Step& noted = steps_.back();
    for (size_t i = 0; i < sources.size(); i++) {
        const size_t in_tail = sources[i] - noted.kept;
        lists_.update_entry(
                list,
                noted.gaps[i],
                noted.tail.ids[in_tail],
                noted.tail.codes.data() + in_tail * bytes);
        moves.push_back({noted.tail.ids[in_tail], sources[i], noted.gaps[i]});
    }
    lists_.resize(list, noted.kept);
}

void ListJournal::undo(const Step& step) {
    const size_t bytes = lists_.code_size;
    if (step.tail.ids.empty()) {
        if (lists_.list_size(step.list) > step.kept) {
            lists_.resize(step.list, step.kept);
        }
        return;
    }
    if (lists_.list_size(step.list) == step.kept) {
        lists_.add_entries(
                step.list,
                step.tail.ids.size(),
                step.tail.ids.data(),
                step.tail.codes.data());
    }
    for (size_t i = 0; i < step.gaps.size(); i++) {
        lists_.update_entry(
                step.list,
                step.gaps[i],
                step.gap_entries.ids[i],
                step.gap_entries.codes.data() + i * bytes);
    }
}

} // namespace faiss_flash
