#include <sys/stat.h>

#include <string>
#include <utility>
#include <vector>

#include <faiss_flash/io/layout_reader.h>

namespace faiss_flash {

namespace {

void array_lists(LayoutReader& in, uint64_t nlist, size_t code_size) {
    const auto form = in.get<uint32_t>();
    const bool sparse = in.is(form, "sprs");
    if (!sparse && !in.is(form, "full")) {
        in.unknown("list sizes", form);
    }
    const uint64_t n = in.count("list sizes", sizeof(size_t));
    FAISS_THROW_IF_NOT_FMT(
            sparse ? n % 2 == 0 : n == nlist,
            "%llu numbers for the sizes of %llu lists",
            ull(n),
            ull(nlist));
    const uint64_t entry_bytes = code_size + sizeof(int64_t);
    uint64_t entries = 0, next = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (sparse) {
            const auto list = in.get<uint64_t>();
            FAISS_THROW_IF_NOT_FMT(
                    list >= next && list < nlist,
                    "list %llu of %llu, out of order",
                    ull(list),
                    ull(nlist));
            next = list + 1;
            i++;
        }
        const auto size = in.get<uint64_t>();
        FAISS_THROW_IF_NOT_FMT(
                size <= in.left() / entry_bytes -
                                std::min(entries, in.left() / entry_bytes),
                "a list of %llu entries does not fit into the %llu bytes "
                "that are left",
                ull(size),
                ull(in.left()));
        entries += size;
    }
    in.skip(entries * entry_bytes);
}

void disk_lists(LayoutReader& in, uint64_t nlist, size_t code_size) {
    const uint64_t entry_bytes = code_size + sizeof(int64_t);
    const uint64_t n = in.count("on-disk lists", 3 * sizeof(size_t));
    FAISS_THROW_IF_NOT_FMT(
            n == nlist,
            "%llu on-disk lists for nlist = %llu",
            ull(n),
            ull(nlist));
    // what lists and free slots take of their file: (begin, end)
    std::vector<std::pair<uint64_t, uint64_t>> taken;
    auto take = [&](uint64_t offset, uint64_t bytes) {
        FAISS_THROW_IF_NOT_MSG(
                offset <= (uint64_t(1) << 60) && bytes <= (uint64_t(1) << 60),
                "on-disk lists at impossible places");
        taken.emplace_back(offset, offset + bytes);
    };
    for (uint64_t i = 0; i < n; i++) {
        const auto size = in.get<uint64_t>(), capacity = in.get<uint64_t>(),
                   offset = in.get<uint64_t>();
        FAISS_THROW_IF_NOT_MSG(
                size <= capacity &&
                        capacity <= (uint64_t(1) << 48) / entry_bytes,
                "an on-disk list larger than its place");
        if (capacity > 0) {
            take(offset, capacity * entry_bytes);
        }
    }
    const uint64_t nslot = in.count("on-disk slots", 2 * sizeof(size_t));
    uint64_t end_of_slots = 0;
    for (uint64_t i = 0; i < nslot; i++) {
        const auto offset = in.get<uint64_t>();
        take(offset, in.get<uint64_t>());
        FAISS_THROW_IF_NOT_MSG(
                offset >= end_of_slots, "on-disk slots out of order");
        end_of_slots = taken.back().second;
    }
    std::sort(taken.begin(), taken.end());
    for (size_t i = 1; i < taken.size(); i++) {
        FAISS_THROW_IF_NOT_MSG(
                taken[i].first >= taken[i - 1].second,
                "on-disk lists and slots overlap");
    }
    const uint64_t needed = taken.empty() ? 0 : taken.back().second;
    const uint64_t length = in.count("a file name", 1);
    FAISS_THROW_IF_NOT_MSG(length <= 4096, "a file name that is too long");
    std::string name(length, '\0');
    in.get_bytes(&name[0], length);
    const auto total = in.get<uint64_t>();
    struct stat status;
    FAISS_THROW_IF_NOT_FMT(
            needed <= total && stat(name.c_str(), &status) == 0 &&
                    S_ISREG(status.st_mode) &&
                    total <= (uint64_t)status.st_size,
            "its on-disk lists need %llu bytes of '%s'",
            ull(std::max(needed, total)),
            name.c_str());
}

} // namespace

void check_lists_layout(LayoutReader& in, uint64_t nlist, size_t code_size) {
    const auto fourcc = in.get<uint32_t>();
    FAISS_THROW_IF_NOT_MSG(
            !in.is(fourcc, "il00"), "the index has no inverted lists");
    if (!in.is(fourcc, "ilar") && !in.is(fourcc, "ilod")) {
        in.unknown("inverted lists", fourcc);
    }
    const auto lists = in.get<uint64_t>();
    FAISS_THROW_IF_NOT_FMT(
            lists == nlist,
            "%llu lists for nlist = %llu",
            ull(lists),
            ull(nlist));
    same_code_size(in.get<uint64_t>(), code_size);
    if (in.is(fourcc, "ilod")) {
        disk_lists(in, nlist, code_size);
    } else {
        array_lists(in, nlist, code_size);
    }
}

} // namespace faiss_flash
