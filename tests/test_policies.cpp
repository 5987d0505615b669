// Which lists a vector goes to, against the formulas in plain doubles.

#include <tests/index_util.h>
#include <tests/policy_oracle.h>

#include <cmath>
#include <limits>
#include <numeric>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/engine/engine.h>

using namespace faiss_flash;
using test::all_policies;
using test::check_throws;
using test::Slow;
using test::slow_lists;

namespace {

Model make_model(size_t k, size_t d, int seed, bool diagonal = false) {
    Model model;
    model.k = k;
    model.d = d;
    model.means = test::clustered(k, d, seed);
    std::mt19937 rng(seed + 1);
    std::uniform_real_distribution<float> uniform(0.2f, 1.0f);
    double total = 0;
    for (size_t c = 0; c < k; c++) {
        model.variances.push_back(uniform(rng));
        model.weights.push_back(uniform(rng));
        total += model.weights.back();
    }
    for (float& weight : model.weights) {
        weight /= total;
    }
    if (diagonal) {
        model.make_diagonal();
        for (float& variance : model.variances) {
            variance *= uniform(rng);
        }
    }
    return model;
}

} // namespace

TEST_CASE("policies follow their formulas", "[sanitize][per_engine]") {
    struct Shape {
        size_t n, k, d;
    };
    const Shape shape = GENERATE(
            Shape{300, 40, 16},
            Shape{200, 17, 7},
            Shape{100, 3, 1},
            Shape{64, 5, 3},
            Shape{150, 33, 130});
    const bool diagonal = GENERATE(false, true);
    const Model model = make_model(shape.k, shape.d, 5, diagonal);
    const std::vector<float> x = test::clustered(shape.n, shape.d, 6);
    for (const AssignmentPolicy& policy : all_policies()) {
        if (diagonal && policy.rule != AssignmentRule::responsibility) {
            continue; // the others look at distances alone
        }
        const size_t m = policy.list_limit();
        std::vector<idx_t> lists(shape.n * m, -7);
        assign_lists(
                policy, get_engine(), model, shape.n, x.data(), lists.data());
        size_t compared = 0;
        for (size_t i = 0; i < shape.n; i++) {
            bool tight = false;
            const std::vector<idx_t> expected =
                    slow_lists(policy, model, &x[i * shape.d], tight);
            const std::vector<idx_t> found(
                    lists.begin() + i * m, lists.begin() + (i + 1) * m);
            if (!tight) {
                INFO(to_string(policy.rule)
                     << " k=" << shape.k << " d=" << shape.d << " row " << i);
                CHECK(found == expected);
                compared++;
            }
        }
        // ties are rare: the comparison must not become empty
        CHECK(compared > shape.n / 2);
    }
}

TEST_CASE("lists are distinct, valid and end in -1", "[sanitize]") {
    const size_t n = 500, k = 20, d = 8;
    const Model model = make_model(k, d, 1);
    const std::vector<float> x = test::clustered(n, d, 2);
    for (const AssignmentPolicy& policy : all_policies()) {
        const size_t m = policy.list_limit();
        std::vector<idx_t> lists(n * m, -7);
        assign_lists(policy, get_engine(), model, n, x.data(), lists.data());
        for (size_t i = 0; i < n; i++) {
            const idx_t* row = lists.data() + i * m;
            CHECK((row[0] >= 0 && row[0] < (idx_t)k));
            for (size_t j = 1; j < m; j++) {
                CHECK((row[j] >= -1 && row[j] < (idx_t)k));
                CHECK((row[j] < 0 || row[j - 1] >= 0));
                CHECK((row[j] < 0 || std::count(row, row + j, row[j]) == 0));
            }
        }
    }
}

TEST_CASE("blocks do not change the lists") {
    // more rows than one block, for the candidates and for the results
    const size_t n = 40000, k = 6, d = 3;
    const Model model = make_model(k, d, 3);
    const std::vector<float> x = test::clustered(n, d, 4);
    for (const AssignmentPolicy& policy :
         {AssignmentPolicy::air(),
          AssignmentPolicy::top_m(4),
          AssignmentPolicy::responsibility(0.1, 2)}) {
        const size_t m = policy.list_limit();
        std::vector<idx_t> whole(n * m), parts(n * m);
        assign_lists(policy, get_engine(), model, n, x.data(), whole.data());
        for (size_t i = 0; i < n; i += 777) {
            assign_lists(
                    policy,
                    get_engine(),
                    model,
                    std::min<size_t>(777, n - i),
                    x.data() + i * d,
                    parts.data() + i * m);
        }
        CHECK(whole == parts);
    }
}

TEST_CASE("a vector on its centroid") {
    const size_t k = 12, d = 4;
    const Model model = make_model(k, d, 9);
    for (const AssignmentPolicy& policy : all_policies()) {
        if (policy.rule == AssignmentRule::responsibility) {
            continue; // the largest responsibility may be another's
        }
        const size_t m = policy.list_limit();
        std::vector<idx_t> lists(k * m);
        assign_lists(
                policy,
                get_engine(),
                model,
                k,
                model.means.data(),
                lists.data());
        for (size_t c = 0; c < k; c++) {
            INFO(to_string(policy.rule));
            CHECK(lists[c * m] == (idx_t)c);
            if (policy.rule == AssignmentRule::closure ||
                (policy.rule == AssignmentRule::air && !policy.strict)) {
                CHECK(lists[c * m + 1] == -1);
            }
            if (policy.rule == AssignmentRule::soar) {
                // the direction term vanishes: the next nearest
                const Slow slow{model, &model.means[c * d]};
                CHECK(lists[c * m + 1] == (idx_t)slow.nearest()[1]);
            }
        }
    }
}

TEST_CASE("one list only") {
    Model model = make_model(1, 5, 3);
    const std::vector<float> x = test::clustered(9, 5, 3);
    for (AssignmentPolicy policy :
         {AssignmentPolicy::nearest(),
          AssignmentPolicy::top_m(1),
          AssignmentPolicy::responsibility(0, 1),
          AssignmentPolicy::closure(0.5, 1),
          AssignmentPolicy::air(1, true),
          AssignmentPolicy::soar()}) {
        const size_t m = policy.list_limit();
        std::vector<idx_t> lists(9 * m, -7);
        assign_lists(policy, get_engine(), model, 9, x.data(), lists.data());
        for (size_t i = 0; i < 9 * m; i++) {
            CHECK(lists[i] == (i % m == 0 ? 0 : -1));
        }
    }
}

TEST_CASE("distances are L2 whatever the model's metric") {
    const size_t n = 200, k = 15, d = 6;
    Model model = make_model(k, d, 11);
    const std::vector<float> x = test::clustered(n, d, 12);
    std::vector<idx_t> l2(n * 2), ip(n * 2);
    const AssignmentPolicy policy = AssignmentPolicy::air();
    assign_lists(policy, get_engine(), model, n, x.data(), l2.data());
    model.metric = Metric::inner_product;
    assign_lists(policy, get_engine(), model, n, x.data(), ip.data());
    CHECK(l2 == ip);
}

TEST_CASE("names of rules") {
    for (const AssignmentPolicy& policy : all_policies()) {
        CHECK(assignment_rule(to_string(policy.rule)) == policy.rule);
    }
    check_throws(
            [] { assignment_rule("nearst"); }, {"nearst", "nearest", "soar"});
}

TEST_CASE("bad policies are refused") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    auto bad = [](AssignmentPolicy policy,
                  const std::vector<std::string>& parts) {
        check_throws([&] { policy.check(10); }, parts);
    };
    for (double tau : {-0.1, 1.0, 1.5, nan, inf}) {
        bad(AssignmentPolicy::responsibility(tau), {"tau", "(0, 1)"});
    }
    for (int lists : {0, -1}) {
        bad(AssignmentPolicy::top_m(lists),
            {"max_lists", std::to_string(lists), "at least 1"});
    }
    bad(AssignmentPolicy::top_m(11), {"max_lists", "11", "nlist = 10"});
    bad(AssignmentPolicy::responsibility(0, 11), {"max_lists", "11"});
    bad(AssignmentPolicy::closure(0.1, 11), {"max_lists", "11"});
    for (double lambda : {-1.0, nan, inf}) {
        bad(AssignmentPolicy::air(lambda), {"lambda", "at least 0"});
        bad(AssignmentPolicy::soar(lambda), {"lambda", "at least 0"});
    }
    for (double epsilon : {-0.5, nan, inf}) {
        bad(AssignmentPolicy::closure(epsilon, 2), {"epsilon", "at least 0"});
    }
    AssignmentPolicy policy = AssignmentPolicy::air();
    policy.candidates = 1;
    bad(policy, {"candidates = 1", "at least 2"});
    for (const AssignmentPolicy& good : all_policies()) {
        CHECK_NOTHROW(good.check(10));
    }

    Model plain = make_model(4, 2, 1);
    plain.variances.clear();
    plain.weights.clear();
    const float x[2] = {0, 0};
    idx_t lists[2];
    check_throws(
            [&] {
                assign_lists(
                        AssignmentPolicy::responsibility(),
                        get_engine(),
                        plain,
                        1,
                        x,
                        lists);
            },
            {"responsibility", "variances"});
}
