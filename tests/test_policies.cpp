// Which lists a vector goes to, against the formulas in plain doubles.

#include <tests/index_util.h>

#include <cmath>
#include <limits>
#include <numeric>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/engine/engine.h>

using namespace faiss_flash;
using test::check_throws;

namespace {

Model make_model(size_t k, size_t d, int seed) {
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
    return model;
}

/// One vector's distances and products in double precision.
struct Slow {
    const Model& model;
    const float* x;

    double dot(size_t a, size_t b) const { // r_a · r_b
        double sum = 0;
        for (size_t j = 0; j < model.d; j++) {
            sum += ((double)x[j] - model.means[a * model.d + j]) *
                    ((double)x[j] - model.means[b * model.d + j]);
        }
        return sum;
    }
    double dist(size_t c) const {
        return dot(c, c);
    }
    double between(size_t a, size_t b) const {
        return Slow{model, &model.means[a * model.d]}.dist(b);
    }
    double log_joint(size_t c) const {
        const double variance = model.variances[c];
        return std::log((double)model.weights[c]) -
                0.5 * model.d * std::log(variance) - dist(c) / (2 * variance);
    }
    /// the components in descending order of value
    std::vector<size_t> order(const std::vector<double>& value) const {
        std::vector<size_t> o(model.k);
        std::iota(o.begin(), o.end(), 0);
        std::stable_sort(o.begin(), o.end(), [&](size_t a, size_t b) {
            return value[a] > value[b];
        });
        return o;
    }
    std::vector<size_t> nearest() const {
        std::vector<double> value(model.k);
        for (size_t c = 0; c < model.k; c++) {
            value[c] = -dist(c);
        }
        return order(value);
    }
    std::vector<double> responsibilities() const {
        std::vector<double> r(model.k);
        double best = -HUGE_VAL, sum = 0;
        for (size_t c = 0; c < model.k; c++) {
            r[c] = log_joint(c);
            best = std::max(best, r[c]);
        }
        for (double& value : r) {
            value = std::exp(value - best);
            sum += value;
        }
        for (double& value : r) {
            value /= sum;
        }
        return r;
    }
};

/// The rule in plain words. `tight` becomes true where the outcome hangs on
/// less than float rounding can decide.
std::vector<idx_t> slow_lists(
        const AssignmentPolicy& p,
        const Model& model,
        const float* x,
        bool& tight) {
    const Slow slow{model, x};
    const double tolerance = 1e-4;
    auto close = [&](double a, double b) {
        return std::isfinite(b) &&
                std::fabs(a - b) <=
                tolerance * (std::fabs(a) + std::fabs(b) + 1e-6);
    };
    std::vector<size_t> order = slow.nearest();
    for (size_t i = 0; i + 1 < order.size() && i < (size_t)p.candidates; i++) {
        tight = tight || close(slow.dist(order[i]), slow.dist(order[i + 1]));
    }
    std::vector<idx_t> lists(p.list_limit(), -1);
    lists[0] = order[0];
    const size_t ncandidate = std::min<size_t>(p.candidates, model.k);
    switch (p.rule) {
        case AssignmentRule::nearest:
            break;
        case AssignmentRule::top_m:
            std::copy_n(order.begin(), p.max_lists, lists.begin());
            break;
        case AssignmentRule::responsibility: {
            const std::vector<double> r = slow.responsibilities();
            const double tau = p.tau > 0 ? p.tau : 1.0 / model.k;
            order = slow.order(r);
            lists[0] = order[0];
            for (int j = 1; j < p.max_lists; j++) {
                tight = tight || close(r[order[j]], tau) ||
                        (r[order[j]] > tau / 2 &&
                         close(r[order[j]], r[order[j - 1]]));
                lists[j] = r[order[j]] > tau ? (idx_t)order[j] : -1;
            }
            break;
        }
        case AssignmentRule::closure: {
            const double reach =
                    (1 + p.epsilon) * std::sqrt(slow.dist(order[0]));
            int count = 1;
            for (size_t j = 1; j < ncandidate && count < p.max_lists; j++) {
                const double dist = slow.dist(order[j]);
                tight = tight || close(std::sqrt(dist), reach);
                bool keep = std::sqrt(dist) <= reach;
                for (int i = 0; i < count; i++) {
                    const double gap = slow.between(order[j], lists[i]);
                    tight = tight || (keep && close(gap, dist));
                    keep = keep && gap >= dist;
                }
                if (keep) {
                    lists[count++] = order[j];
                }
            }
            break;
        }
        default: {
            const bool air = p.rule == AssignmentRule::air;
            const double first = slow.dist(order[0]);
            double best = HUGE_VAL;
            for (size_t j = 1; j < ncandidate; j++) {
                const double dot = slow.dot(order[0], order[j]);
                const double direction = air ? dot
                        : first > 0          ? dot * dot / first
                                             : 0;
                const double score = slow.dist(order[j]) + p.lambda * direction;
                tight = tight || close(score, best);
                if (score < best) {
                    best = score;
                    lists[1] = order[j];
                }
            }
            if (air && !p.strict) {
                const double alone = (1 + p.lambda) * first;
                tight = tight || close(alone, best);
                if (alone <= best) {
                    lists[1] = -1;
                }
            }
        }
    }
    return lists;
}

std::vector<AssignmentPolicy> all_policies() {
    AssignmentPolicy few = AssignmentPolicy::air(0.5);
    few.candidates = 2;
    return {AssignmentPolicy::nearest(),
            AssignmentPolicy::top_m(3),
            AssignmentPolicy::responsibility(),
            AssignmentPolicy::responsibility(0.2, 3),
            AssignmentPolicy::closure(0.3, 3),
            AssignmentPolicy::closure(0, 2),
            AssignmentPolicy::air(),
            AssignmentPolicy::air(0.5, true),
            AssignmentPolicy::air(0),
            AssignmentPolicy::soar(),
            AssignmentPolicy::soar(3),
            few};
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
    const Model model = make_model(shape.k, shape.d, 5);
    const std::vector<float> x = test::clustered(shape.n, shape.d, 6);
    for (const AssignmentPolicy& policy : all_policies()) {
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
