#include <eval/table.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

namespace faiss_flash {

namespace {

constexpr size_t factor_width = 14;

std::string format(const char* pattern, double value) {
    char text[64];
    std::snprintf(text, sizeof(text), pattern, value);
    return text;
}

std::string right(const std::string& text, size_t width) {
    return std::string(width - std::min(width, text.size()), ' ') + text;
}

std::string left(const std::string& text, size_t width) {
    return text + std::string(width - std::min(width, text.size()), ' ');
}

std::string cell(const SummaryEntry& entry) {
    if (entry.method == "faiss") {
        return entry.dco_raw.mean ? format("%.0f", *entry.dco_raw.mean) : "-";
    }
    if (!entry.factor_raw.mean || !entry.factor_unique.mean) {
        return "-";
    }
    return format("%.2f", *entry.factor_raw.mean) + " / " +
            format("%.2f", *entry.factor_unique.mean);
}

/// Entries of one method, one per recall target.
using Line = std::vector<SummaryEntry>;

/// Whether any method has a value at any target. The first target may be
/// missed from above: the smallest nprobe can exceed it already.
bool any_reached(const std::vector<Line>& lines) {
    return std::any_of(lines.begin(), lines.end(), [](const Line& line) {
        return std::any_of(
                line.begin(), line.end(), [](const SummaryEntry& entry) {
                    return entry.dco_raw.mean.has_value();
                });
    });
}

std::string block(const std::vector<Line>& lines) {
    const SummaryEntry& first = lines.front().front();
    size_t name_width = 6;
    size_t seeds = 0;
    for (const Line& line : lines) {
        name_width = std::max(name_width, line.front().method.size());
        seeds = std::max(seeds, line.front().seeds);
    }
    std::string text = "\n" + first.dataset +
            ", n = " + std::to_string(first.n) +
            ", nlist = " + std::to_string(first.nlist) + ", codec " +
            first.codec + ", " + std::to_string(seeds) +
            (seeds == 1 ? " seed\n" : " seeds (means)\n");
    if (!any_reached(lines)) {
        return text + "no method reaches a recall@10 of " +
                format("%.2f", recall_targets.front()) + "\n";
    }
    text += "faiss: distances per query for that recall@10; others: how many "
            "times fewer, raw / unique\n";
    text += left("method", name_width) + right("copies", 8);
    for (const SummaryEntry& entry : lines.front()) {
        text += right(format("%.2f", entry.recall), factor_width);
    }
    text += "\n";
    for (const Line& line : lines) {
        text += left(line.front().method, name_width) +
                right(format("%.2f", line.front().copies), 8);
        for (const SummaryEntry& entry : line) {
            text += right(cell(entry), factor_width);
        }
        text += "\n";
    }
    return text;
}

} // namespace

std::string summary_table(const std::vector<SummaryEntry>& entries) {
    // Entries of a method follow each other, methods of a block need not.
    using BlockKey = std::tuple<std::string, size_t, size_t, std::string>;
    std::map<BlockKey, size_t> place;
    std::vector<std::vector<Line>> blocks;
    for (size_t i = 0; i < entries.size(); i += recall_targets.size()) {
        const SummaryEntry& entry = entries[i];
        const BlockKey key{entry.dataset, entry.n, entry.nlist, entry.codec};
        const auto [at, is_new] = place.emplace(key, blocks.size());
        if (is_new) {
            blocks.emplace_back();
        }
        blocks[at->second].emplace_back(
                entries.begin() + i,
                entries.begin() + i + recall_targets.size());
    }
    std::string text;
    for (const std::vector<Line>& lines : blocks) {
        text += block(lines);
    }
    return text;
}

} // namespace faiss_flash
