// The harness's rules on cases worked out by hand: methods and codecs by
// name, recall, curves.csv, interpolation and the summary.

#include <tests/catch_compat.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <eval/arguments.h>
#include <eval/curves.h>
#include <eval/methods.h>
#include <eval/recall.h>
#include <eval/rerank.h>
#include <eval/summary.h>
#include <eval/table.h>

using namespace faiss_flash;
using Catch::Matchers::ContainsSubstring;

namespace {

/// A file name of its own, removed in the end.
struct TemporaryFile {
    std::filesystem::path path = std::filesystem::temp_directory_path() /
            ("faiss_flash_curves_" + std::to_string(std::rand()) + ".csv");
    ~TemporaryFile() {
        std::filesystem::remove(path);
    }
};

CurveRow row(
        const std::string& trainer,
        const std::string& policy,
        size_t seed,
        size_t nprobe,
        double recall,
        double raw,
        double unique) {
    CurveRow r;
    r.dataset = "set";
    r.n = 1000;
    r.d = 4;
    r.metric = "l2";
    r.nlist = 10;
    r.trainer = trainer;
    r.policy = policy;
    r.codec = "flat";
    r.copies = raw > unique ? 1.5 : 1;
    r.nprobe = nprobe;
    r.recall_at_10 = recall;
    r.dco_raw = raw;
    r.dco_unique = unique;
    r.dco_coarse = 10;
    r.search_s = 0.5;
    r.qps = 1000 / raw;
    r.seed = seed;
    return r;
}

const SummaryEntry& entry(
        const std::vector<SummaryEntry>& entries,
        const std::string& method,
        double recall) {
    for (const SummaryEntry& e : entries) {
        if (e.method == method && e.recall == recall) {
            return e;
        }
    }
    FAIL("no entry for " << method << " at " << recall);
    return entries.front();
}

} // namespace

TEST_CASE("methods are found by name", "[eval]") {
    const auto all = parse_methods({"all"});
    CHECK(all.size() == 13);
    CHECK(all[0].name() == "faiss");
    CHECK(all[1].name() == "kmeans+nearest");
    CHECK(all[12].name() == "gmm+soar");

    const auto some = parse_methods({"gmm+air", "faiss", "gmm+air"});
    REQUIRE(some.size() == 2);
    CHECK(some[0].name() == "gmm+air");
    CHECK(some[0].trainer_name() == "gmm");
    CHECK(some[0].policy_name() == "air");
    CHECK(some[1].stock);

    CHECK_THROWS_WITH(
            parse_methods({"gmm+aire"}), ContainsSubstring("gmm+aire"));
    CHECK_THROWS(parse_methods({}));
}

TEST_CASE("codecs are read from their names", "[eval]") {
    CHECK(parse_codec("flat", 10).kind == Codec::Kind::flat);
    CHECK(parse_codec("flat", 10).rerank == 0);
    CHECK(parse_codec("sq8", 10).kind == Codec::Kind::sq8);
    CHECK(parse_codec("pq16", 10).pq_m == 16);
    CHECK(parse_codec("pq16+rerank", 10).rerank == 10);
    CHECK(parse_codec("pq16+rerank2.5", 10).rerank == 2.5);
    CHECK(parse_codec("pq16+rerank", 10).storage == "pq16");
    CHECK(parse_codec("pq16+rerank", 10).name == "pq16+rerank");
    for (const char* bad :
         {"",
          "pq",
          "pq0",
          "pq-4",
          "pq2.5",
          "pq16x",
          "flat8",
          "pq16+rerank0",
          "pq16+rerankx",
          "+rerank"}) {
        CHECK_THROWS_WITH(parse_codec(bad, 10), ContainsSubstring("codec"));
    }
}

TEST_CASE("policies take the options that are theirs", "[eval]") {
    PolicyOptions options;
    CHECK(make_policy(AssignmentRule::closure, options).max_lists == 8);
    CHECK(make_policy(AssignmentRule::top_m, options).max_lists == 2);
    options.max_lists = 3;
    options.lambda = 0.5;
    CHECK(make_policy(AssignmentRule::closure, options).max_lists == 3);
    CHECK(policy_params(make_policy(AssignmentRule::air, options)) ==
          "lambda=0.5;strict=0;candidates=16");
    CHECK(policy_params(make_policy(AssignmentRule::responsibility, options)) ==
          "tau=1/K;max_lists=3");
}

TEST_CASE("automatic lists grow evenly on a logarithmic scale", "[eval]") {
    CHECK(automatic_nprobe(1) == std::vector<size_t>{1});
    CHECK(automatic_nprobe(30) ==
          std::vector<size_t>{1, 2, 3, 4, 5, 6, 7, 8, 10});
    CHECK(automatic_nprobe(1024).back() == 304);
    CHECK(automatic_nlist(1000000) == 1024);
    CHECK(automatic_nlist(50000) == 256);
    CHECK(automatic_nlist(1) == 1);
}

TEST_CASE("recall counts true neighbours and ties with the tenth", "[eval]") {
    // Base vectors 0, 1, ..., 11 on a line, then -9 (as far as 9 is) and 9.
    SearchTask task;
    task.n = 14;
    task.d = 1;
    task.nq = 1;
    for (int i = 0; i < 12; i++) {
        task.base.push_back(static_cast<float>(i));
    }
    task.base.push_back(-9);
    task.base.push_back(9);
    task.queries = {0};
    task.true_k = 10;
    for (int i = 0; i < 10; i++) {
        task.true_ids.push_back(i);
    }
    std::vector<idx_t> labels = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    const auto recall = [&] {
        return recall_at_10(task, labels.size(), labels.data());
    };
    CHECK(recall() == 1);
    labels[9] = 12; // tied
    CHECK(recall() == 1);
    labels[9] = 13; // the tenth's duplicate
    CHECK(recall() == 1);
    labels[9] = 10; // farther
    CHECK(recall() == Catch::Approx(0.9));
    labels[9] = 3; // again
    CHECK(recall() == Catch::Approx(0.9));
    labels[9] = -1;
    labels[8] = -1;
    CHECK(recall() == Catch::Approx(0.8));
    // Only the first ten results count.
    labels = {0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 9};
    CHECK(recall() == Catch::Approx(0.9));
}

TEST_CASE("re-ranking sorts candidates by exact distance", "[eval]") {
    SearchTask task;
    task.n = 5;
    task.d = 1;
    task.nq = 2;
    task.base = {0, 1, 2, 3, 4};
    task.queries = {0, 4};
    const std::vector<idx_t> candidates = {4, 2, 1, 0, 3, -1};
    std::vector<idx_t> labels(4);
    const size_t distances = rerank(
            task, faiss::METRIC_L2, 3, candidates.data(), 2, labels.data());
    CHECK(distances == 5);
    CHECK(labels == std::vector<idx_t>{1, 2, 3, 0});
    task.queries = {1, -1};
    rerank(task,
           faiss::METRIC_INNER_PRODUCT,
           3,
           candidates.data(),
           2,
           labels.data());
    CHECK(labels == std::vector<idx_t>{4, 2, 0, 3});
}

TEST_CASE("curves.csv has its columns and comes back as written", "[eval]") {
    CHECK(curve_header() ==
          "dataset,n,d,metric,nlist,trainer,policy,params,codec,copies,"
          "bytes_per_vector,nprobe,recall_at_10,dco_raw,dco_unique,dco_coarse,"
          "train_s,add_s,search_s,qps,threads,engine,seed,faiss_version,"
          "commit");

    TemporaryFile file;
    CurveRow first = row("gmm", "air", 1234, 3, 0.875, 120.5, 100.25);
    first.dataset = "a \"strange\", name\nof two lines";
    first.params = "lambda=1;strict=0";
    first.engine = "cpu";
    first.faiss_version = "1.7.3";
    first.commit = "abc+";
    const CurveRow second = row("faiss", "nearest", 1, 1, 0.1, 7, 7);
    {
        CurveWriter writer(file.path.string());
        writer.add(first);
        writer.add(second);
        // On disk already, while the writer lives.
        CHECK(read_curves(file.path.string()).size() == 2);
    }
    const auto rows = read_curves(file.path.string());
    REQUIRE(rows.size() == 2);
    CHECK(curve_line(rows[0]) == curve_line(first));
    CHECK(rows[0].dataset == first.dataset);
    CHECK(rows[0].dco_unique == 100.25);
    CHECK(rows[0].method() == "gmm+air");
    CHECK(rows[1].method() == "faiss");

    SECTION("a row that was cut short is left out") {
        const auto size = std::filesystem::file_size(file.path);
        std::filesystem::resize_file(file.path, size - 5);
        CHECK(read_curves(file.path.string()).size() == 1);
    }
    SECTION("what is no row is refused") {
        std::ofstream(file.path, std::ios::app) << "a,b,c\n";
        CHECK_THROWS_WITH(
                read_curves(file.path.string()), ContainsSubstring("3 fields"));
    }
    SECTION("what is no number is refused") {
        std::string line = curve_line(second);
        line.replace(line.find("1000"), 4, "many");
        std::ofstream(file.path, std::ios::app) << line << "\n";
        CHECK_THROWS_WITH(
                read_curves(file.path.string()),
                ContainsSubstring("many") && ContainsSubstring(" n"));
    }
    SECTION("another file is refused") {
        std::ofstream(file.path) << "x,y\n1,2\n";
        CHECK_THROWS_WITH(
                read_curves(file.path.string()), ContainsSubstring("header"));
    }
}

TEST_CASE("a recall is found between its neighbours", "[eval]") {
    const std::vector<double> recalls = {0.5, 0.7, 0.9, 0.88, 0.95};
    const auto place = find_recall(recalls, 0.8, true);
    REQUIRE(place);
    CHECK(place->left == 1);
    CHECK(place->part == Catch::Approx(0.5));
    // Half way between 100 and 400 on a logarithmic scale.
    CHECK(value_at({10, 100, 400, 800, 900}, *place) == Catch::Approx(200));

    // The first crossing counts; a point itself is found exactly.
    CHECK(find_recall(recalls, 0.9, true)->left == 1);
    CHECK(find_recall(recalls, 0.9, true)->part == Catch::Approx(1));
    CHECK(find_recall(recalls, 0.93, true)->left == 3);
    CHECK_FALSE(find_recall(recalls, 0.96, true));

    // Below the first point nothing is known, unless nothing is cheaper.
    CHECK(find_recall(recalls, 0.4, true)->part == 0);
    CHECK_FALSE(find_recall(recalls, 0.4, false));
    CHECK_FALSE(find_recall({}, 0.4, true));

    CHECK(*recall_at_cost({100, 400}, {0.7, 0.9}, 200) == Catch::Approx(0.8));
    CHECK(*recall_at_cost({100, 400}, {0.7, 0.9}, 400) == 0.9);
    CHECK_FALSE(recall_at_cost({100, 400}, {0.7, 0.9}, 99));
    CHECK_FALSE(recall_at_cost({100, 400}, {0.7, 0.9}, 401));
}

TEST_CASE("the mean and spread of seeds", "[eval]") {
    CHECK_FALSE(spread({}).mean);
    CHECK(*spread({3}).mean == 3);
    CHECK_FALSE(spread({3}).std);
    CHECK(*spread({1, 3}).mean == 2);
    CHECK(*spread({1, 3}).std == Catch::Approx(std::sqrt(2.0)));
}

TEST_CASE("the summary of two seeds worked out by hand", "[eval]") {
    std::vector<CurveRow> rows = {
            row("faiss", "nearest", 1, 1, 0.7, 100, 100),
            row("faiss", "nearest", 1, 2, 0.9, 400, 400),
            row("faiss", "nearest", 2, 1, 0.7, 100, 100),
            row("faiss", "nearest", 2, 2, 0.9, 900, 900),
            row("gmm", "air", 1, 2, 0.85, 150, 120),
            row("gmm", "air", 1, 1, 0.75, 96, 80),
            row("gmm", "air", 1, 4, 0.95, 600, 300),
            row("gmm", "air", 2, 1, 0.8, 100, 50),
            row("gmm", "air", 2, 2, 0.85, 200, 100),
    };
    const auto entries = summarize(rows);
    CHECK(entries.size() == 2 * recall_targets.size());

    // faiss needs sqrt(100 400) = 200 and sqrt(100 900) = 300 for 0.8.
    const SummaryEntry& stock = entry(entries, "faiss", 0.8);
    CHECK(*stock.dco_raw.mean == Catch::Approx(250));
    CHECK(*stock.dco_raw.std == Catch::Approx(100 / std::sqrt(2.0)));
    CHECK(*stock.factor_raw.mean == Catch::Approx(1));
    CHECK(*stock.recall_at_equal_dco.mean == Catch::Approx(0.8));

    // gmm+air: raw sqrt(96 150) = 120 and 100; unique sqrt(80 120) and 50.
    const SummaryEntry& air = entry(entries, "gmm+air", 0.8);
    CHECK(air.seeds == 2);
    CHECK(air.seeds_reached == 2);
    CHECK(*air.dco_raw.mean == Catch::Approx(110));
    CHECK(*air.factor_raw.mean ==
          Catch::Approx((200.0 / 120 + 300.0 / 100) / 2));
    CHECK(*air.factor_unique.mean ==
          Catch::Approx((200 / std::sqrt(9600.0) + 300.0 / 50) / 2));
    CHECK(*air.factor_total_raw.mean ==
          Catch::Approx((210.0 / 130 + 310.0 / 110) / 2));
    CHECK(*air.dco_coarse.mean == 10);
    // Seed 1 at 200 raw: ln(200/150)/ln(600/150) of the way from 0.85 to
    // 0.95. Seed 2's curve ends below 300 raw.
    CHECK(*air.recall_at_equal_dco.mean ==
          Catch::Approx(0.85 + 0.1 * std::log(4.0 / 3) / std::log(4.0)));
    CHECK_FALSE(air.recall_at_equal_dco.std);

    // 0.9: seed 2 does not reach it; 0.95: faiss does not.
    CHECK(entry(entries, "gmm+air", 0.9).seeds_reached == 1);
    const SummaryEntry& alone = entry(entries, "gmm+air", 0.95);
    CHECK(*alone.dco_raw.mean == Catch::Approx(600));
    CHECK_FALSE(alone.factor_raw.mean);

    const auto json = to_json(entries);
    REQUIRE(json.is_array());
    for (const auto& object : json) {
        for (const char* key :
             {"dataset",
              "method",
              "codec",
              "nlist",
              "recall",
              "dco_raw",
              "dco_unique",
              "dco_coarse",
              "factor_raw",
              "factor_unique",
              "copies",
              "qps"}) {
            CHECK(object.contains(key));
        }
    }
    CHECK(json[4]["recall"] == 0.99);
    CHECK(json[4]["dco_raw"].is_null());
    CHECK(json[5]["method"] == "gmm+air");
    CHECK(json[5]["copies"] == 1.5);

    const std::string table = summary_table(entries);
    CHECK_THAT(table, ContainsSubstring("2.33 / 4.02"));
    CHECK_THAT(table, ContainsSubstring("250"));
}

TEST_CASE("a later row replaces one with the same nprobe", "[eval]") {
    std::vector<CurveRow> rows = {
            row("faiss", "nearest", 1, 1, 0.7, 100, 100),
            row("faiss", "nearest", 1, 2, 0.9, 123, 123),
            row("faiss", "nearest", 1, 2, 0.9, 400, 400)};
    CHECK(*entry(summarize(rows), "faiss", 0.8).dco_raw.mean ==
          Catch::Approx(200));
    // Other codecs and nlists have their own baseline.
    CurveRow other = row("gmm", "air", 1, 1, 0.8, 50, 50);
    other.codec = "pq8";
    rows.push_back(other);
    const auto entries = summarize(rows);
    CHECK(*entry(entries, "gmm+air", 0.8).dco_raw.mean == 50);
    CHECK_FALSE(entry(entries, "gmm+air", 0.8).factor_raw.mean);
}

TEST_CASE("nothing measured makes an empty summary", "[eval]") {
    CHECK(summarize({}).empty());
    CHECK(to_json({}).dump() == "[]");
    CHECK(summary_table({}).empty());
}
