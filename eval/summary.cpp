#include <eval/summary.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace faiss_flash {

const std::vector<double> recall_targets = {0.8, 0.9, 0.95, 0.98, 0.99};

namespace {

/// One seed's curve, by increasing nprobe.
struct Curve {
    std::vector<double> nprobe, recall, raw, unique, coarse, qps;
};

using RowsByProbe = std::map<size_t, CurveRow>;

Curve make_curve(const RowsByProbe& rows) {
    Curve curve;
    for (const auto& [nprobe, row] : rows) {
        curve.nprobe.push_back(static_cast<double>(nprobe));
        curve.recall.push_back(row.recall_at_10);
        curve.raw.push_back(row.dco_raw);
        curve.unique.push_back(row.dco_unique);
        curve.coarse.push_back(row.dco_coarse);
        curve.qps.push_back(row.qps);
    }
    return curve;
}

/// What a curve costs at one recall.
struct Cost {
    double raw, unique, coarse, nprobe, qps;
};

std::optional<Cost> cost_at(const Curve& curve, double recall) {
    const bool starts_at_one = curve.nprobe.front() == 1;
    const auto place = find_recall(curve.recall, recall, starts_at_one);
    if (!place) {
        return std::nullopt;
    }
    return Cost{
            value_at(curve.raw, *place),
            value_at(curve.unique, *place),
            value_at(curve.coarse, *place),
            value_at(curve.nprobe, *place),
            value_at(curve.qps, *place)};
}

/// What has a stock FAISS curve of its own.
using Setting =
        std::tuple<std::string, size_t, std::string, size_t, std::string>;

Setting setting(const CurveRow& row) {
    return {row.dataset, row.n, row.metric, row.nlist, row.codec};
}

/// All rows of one method in one setting.
struct Group {
    CurveRow first;
    std::map<size_t, RowsByProbe> by_seed;
};

/// In the order of their first rows.
std::vector<Group> group_rows(const std::vector<CurveRow>& rows) {
    using Key = std::tuple<Setting, std::string, std::string>;
    std::map<Key, size_t> place;
    std::vector<Group> groups;
    for (const CurveRow& row : rows) {
        const Key key{setting(row), row.method(), row.params};
        const auto [at, is_new] = place.emplace(key, groups.size());
        if (is_new) {
            groups.push_back({row, {}});
        }
        groups[at->second].by_seed[row.seed][row.nprobe] = row;
    }
    return groups;
}

using CurvesBySeed = std::map<size_t, Curve>;

/// The values of one entry, one per seed, before they become means.
struct EntryValues {
    std::vector<double> raw, unique, coarse, nprobe, qps;
    std::vector<double> factor_raw, factor_unique;
    std::vector<double> factor_total_raw, factor_total_unique;
    std::vector<double> recall_at_equal_dco;

    void add_cost(const Cost& cost) {
        raw.push_back(cost.raw);
        unique.push_back(cost.unique);
        coarse.push_back(cost.coarse);
        nprobe.push_back(cost.nprobe);
        qps.push_back(cost.qps);
    }

    void add_factors(const Cost& stock, const Cost& cost) {
        const double stock_total = stock.raw + stock.coarse;
        factor_raw.push_back(stock.raw / cost.raw);
        factor_unique.push_back(stock.raw / cost.unique);
        factor_total_raw.push_back(stock_total / (cost.raw + cost.coarse));
        factor_total_unique.push_back(
                stock_total / (cost.unique + cost.coarse));
    }
};

void fill_entry(
        const CurvesBySeed& curves,
        const CurvesBySeed* stock_curves,
        SummaryEntry& entry) {
    EntryValues values;
    for (const auto& [seed, curve] : curves) {
        const auto cost = cost_at(curve, entry.recall);
        if (cost) {
            values.add_cost(*cost);
        }
        if (!stock_curves || !stock_curves->count(seed)) {
            continue;
        }
        const auto stock = cost_at(stock_curves->at(seed), entry.recall);
        if (stock && cost) {
            values.add_factors(*stock, *cost);
        }
        if (stock) {
            const auto recall =
                    recall_at_cost(curve.raw, curve.recall, stock->raw);
            if (recall) {
                values.recall_at_equal_dco.push_back(*recall);
            }
        }
    }
    entry.seeds = curves.size();
    entry.seeds_reached = values.raw.size();
    entry.dco_raw = spread(values.raw);
    entry.dco_unique = spread(values.unique);
    entry.dco_coarse = spread(values.coarse);
    entry.nprobe = spread(values.nprobe);
    entry.qps = spread(values.qps);
    entry.factor_raw = spread(values.factor_raw);
    entry.factor_unique = spread(values.factor_unique);
    entry.factor_total_raw = spread(values.factor_total_raw);
    entry.factor_total_unique = spread(values.factor_total_unique);
    entry.recall_at_equal_dco = spread(values.recall_at_equal_dco);
}

/// Means of what does not depend on nprobe: one row per seed stands for it.
SummaryEntry entry_for(const Group& group) {
    SummaryEntry entry;
    entry.dataset = group.first.dataset;
    entry.method = group.first.method();
    entry.codec = group.first.codec;
    entry.params = group.first.params;
    entry.n = group.first.n;
    entry.nlist = group.first.nlist;
    const double seeds = static_cast<double>(group.by_seed.size());
    for (const auto& [seed, rows] : group.by_seed) {
        const CurveRow& row = rows.begin()->second;
        entry.copies += row.copies / seeds;
        entry.bytes_per_vector += row.bytes_per_vector / seeds;
        entry.train_s += row.train_s / seeds;
    }
    return entry;
}

nlohmann::ordered_json number_or_null(const std::optional<double>& value) {
    if (!value || !std::isfinite(*value)) {
        return nullptr;
    }
    return *value;
}

} // namespace

Spread spread(const std::vector<double>& values) {
    Spread result;
    if (values.empty()) {
        return result;
    }
    const double n = static_cast<double>(values.size());
    double sum = 0;
    for (double value : values) {
        sum += value;
    }
    result.mean = sum / n;
    if (values.size() > 1) {
        double squares = 0;
        for (double value : values) {
            squares += (value - *result.mean) * (value - *result.mean);
        }
        result.std = std::sqrt(squares / (n - 1));
    }
    return result;
}

std::optional<CurvePlace> find_recall(
        const std::vector<double>& recalls,
        double recall,
        bool starts_at_one) {
    if (recalls.empty()) {
        return std::nullopt;
    }
    if (recalls[0] >= recall) {
        const bool exact = recalls[0] == recall;
        return starts_at_one || exact ? std::optional<CurvePlace>({0, 0.0})
                                      : std::nullopt;
    }
    for (size_t i = 1; i < recalls.size(); i++) {
        if (recalls[i] >= recall) {
            // The first crossing: recalls[i - 1] is below.
            return CurvePlace{
                    i - 1,
                    (recall - recalls[i - 1]) / (recalls[i] - recalls[i - 1])};
        }
    }
    return std::nullopt;
}

double value_at(const std::vector<double>& values, const CurvePlace& place) {
    const double left = values[place.left];
    if (place.part == 0) {
        return left;
    }
    const double right = values[place.left + 1];
    return std::exp(
            std::log(left) + place.part * (std::log(right) - std::log(left)));
}

std::optional<double> recall_at_cost(
        const std::vector<double>& costs,
        const std::vector<double>& recalls,
        double dco) {
    for (size_t i = 0; i < costs.size(); i++) {
        if (costs[i] == dco) {
            return recalls[i];
        }
        if (i > 0 && costs[i - 1] < dco && dco < costs[i]) {
            const double part = std::log(dco / costs[i - 1]) /
                    std::log(costs[i] / costs[i - 1]);
            return recalls[i - 1] + part * (recalls[i] - recalls[i - 1]);
        }
    }
    return std::nullopt;
}

std::vector<SummaryEntry> summarize(const std::vector<CurveRow>& rows) {
    const std::vector<Group> groups = group_rows(rows);
    std::map<Setting, CurvesBySeed> stock;
    std::vector<CurvesBySeed> curves(groups.size());
    for (size_t i = 0; i < groups.size(); i++) {
        for (const auto& [seed, by_probe] : groups[i].by_seed) {
            curves[i][seed] = make_curve(by_probe);
            if (groups[i].first.method() == "faiss") {
                stock[setting(groups[i].first)][seed] = curves[i][seed];
            }
        }
    }
    std::vector<SummaryEntry> entries;
    for (size_t i = 0; i < groups.size(); i++) {
        const auto found = stock.find(setting(groups[i].first));
        SummaryEntry entry = entry_for(groups[i]);
        for (double target : recall_targets) {
            entry.recall = target;
            fill_entry(
                    curves[i],
                    found == stock.end() ? nullptr : &found->second,
                    entry);
            entries.push_back(entry);
        }
    }
    return entries;
}

nlohmann::ordered_json to_json(const std::vector<SummaryEntry>& entries) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const SummaryEntry& entry : entries) {
        nlohmann::ordered_json object;
        object["dataset"] = entry.dataset;
        object["method"] = entry.method;
        object["codec"] = entry.codec;
        object["nlist"] = entry.nlist;
        object["recall"] = entry.recall;
        object["dco_raw"] = number_or_null(entry.dco_raw.mean);
        object["dco_unique"] = number_or_null(entry.dco_unique.mean);
        object["dco_coarse"] = number_or_null(entry.dco_coarse.mean);
        object["factor_raw"] = number_or_null(entry.factor_raw.mean);
        object["factor_unique"] = number_or_null(entry.factor_unique.mean);
        object["copies"] = entry.copies;
        object["qps"] = number_or_null(entry.qps.mean);
        object["factor_raw_std"] = number_or_null(entry.factor_raw.std);
        object["factor_unique_std"] = number_or_null(entry.factor_unique.std);
        object["factor_total_raw"] =
                number_or_null(entry.factor_total_raw.mean);
        object["factor_total_unique"] =
                number_or_null(entry.factor_total_unique.mean);
        object["recall_at_equal_dco"] =
                number_or_null(entry.recall_at_equal_dco.mean);
        object["recall_at_equal_dco_std"] =
                number_or_null(entry.recall_at_equal_dco.std);
        object["dco_raw_std"] = number_or_null(entry.dco_raw.std);
        object["dco_unique_std"] = number_or_null(entry.dco_unique.std);
        object["nprobe"] = number_or_null(entry.nprobe.mean);
        object["bytes_per_vector"] = entry.bytes_per_vector;
        object["train_s"] = entry.train_s;
        object["n"] = entry.n;
        object["params"] = entry.params;
        object["seeds"] = entry.seeds;
        object["seeds_reached"] = entry.seeds_reached;
        list.push_back(object);
    }
    return list;
}

} // namespace faiss_flash
