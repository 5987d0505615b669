// Every engine, on every instruction set of this CPU, against an oracle in
// double precision: see engine_checks.h for what is checked and how tightly.

#include <hwy/targets.h>

#include <functional>
#include <map>

#include <faiss/IndexFlat.h>
#include <faiss_flash/FlashClustering.h>
#include <faiss_flash/cpu/kernels.h>
#include <tests/engine_checks.h>

using namespace test;
using faiss_flash::cpu_engine;
using faiss_flash::get_engine;
using faiss_flash::reference_engine;

namespace {

/// The instruction sets this CPU has and the kernels were compiled for, as
/// Highway's bits by the name of the kernel that runs.
const std::map<std::string, int64_t>& instruction_sets() {
    static const std::map<std::string, int64_t> sets = [] {
        std::map<std::string, int64_t> found;
        const int64_t all = hwy::SupportedTargets();
        const std::string best = faiss_flash::cpu_target_name();
        for (int64_t rest = all; rest != 0; rest &= rest - 1) {
            const int64_t bit = rest & -rest;
            hwy::GetChosenTarget().Update(bit);
            found.emplace(faiss_flash::cpu_target_name(), bit);
        }
        hwy::GetChosenTarget().Update(all);
        REQUIRE(faiss_flash::cpu_target_name() == best);
        REQUIRE(found.count(best) == 1);
        return found;
    }();
    return sets;
}

/// f() once with each instruction set's kernels.
void on_each_instruction_set(const std::function<void()>& f) {
    for (const auto& set : instruction_sets()) {
        hwy::GetChosenTarget().Update(set.second);
        INFO("instruction set " << set.first);
        REQUIRE(faiss_flash::cpu_target_name() == set.first);
        f();
    }
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

/// f(engine) for the reference and for the CPU engine on each instruction
/// set.
void on_each_engine(const std::function<void(const Engine&)>& f) {
    {
        INFO("engine reference");
        f(reference_engine());
    }
    on_each_instruction_set([&] {
        INFO("engine cpu");
        f(cpu_engine());
    });
}

void check_all(const Engine& engine, const Problem& p, size_t m) {
    check_hard(engine, p);
    check_nearest(engine, p, m);
    if (p.model.is_mixture()) {
        check_soft(engine, p);
        check_responsibilities(engine, p, m);
    }
}

/// Random vectors and centroids; as a mixture where `scale` > 0.
Problem random_problem(
        size_t n,
        size_t k,
        size_t d,
        Metric metric,
        bool weighted,
        double scale,
        uint32_t seed) {
    Problem p = make_problem(
            "random n = " + std::to_string(n) + ", k = " + std::to_string(k) +
                    ", d = " + std::to_string(d) +
                    (metric == Metric::l2 ? ", L2" : ", product") +
                    (weighted ? ", weighted" : ""),
            centroid_model(normal_rows(k, d, seed), metric),
            normal_rows(n, d, seed + 1),
            weighted ? random_weights(n, seed + 2) : std::vector<float>());
    return scale > 0 ? as_mixture(std::move(p), scale, seed + 3) : p;
}

} // namespace

TEST_CASE("the instruction sets that are tested") {
    std::string names;
    for (const auto& set : instruction_sets()) {
        names += " " + set.first;
    }
    WARN("CPU kernels covered here:" << names);
    CHECK(!instruction_sets().empty());
#if defined(__x86_64__)
    // a portable baseline is always there, and these where the CPU has them
    CHECK(instruction_sets().size() >= 1);
    CHECK(instruction_sets().count("AVX2") ==
          (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
    CHECK(instruction_sets().count("AVX3") ==
          (__builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl")));
#endif
}

TEST_CASE("engines are exact on shapes around every tile and panel width") {
    // rows: micro-kernels have 2, 6 or 12, blocks 96; columns: panels have
    // 8, 16 or 32, tiles 256
    const size_t ns[] = {1, 5, 6, 7, 11, 12, 13, 95, 96, 97, 191, 193};
    const size_t ks[] = {1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 331};
    const size_t ds[] = {1, 3, 7, 96, 100, 128};
    for (size_t di = 0; di < 6; di++) {
        for (size_t i = 0; i < 12; i++) {
            const size_t n = ns[i], k = ks[(5 * i + 7 * di) % 12];
            const bool product = (i + di) % 3 == 2;
            const Problem p = random_problem(
                    n,
                    k,
                    ds[di],
                    product ? Metric::inner_product : Metric::l2,
                    i % 2 == 1,
                    product             ? 0
                            : i % 4 < 2 ? 0.3
                                        : 3,
                    uint32_t(100 * di + i));
            on_each_engine([&](const Engine& engine) {
                check_all(engine, p, std::min<size_t>(k, 1 + i % 5));
            });
        }
    }
}

TEST_CASE("engines are exact in many dimensions") {
    for (const size_t d : {768, 1536}) {
        for (const size_t k : {1, 33, 70}) {
            for (const Metric metric : {Metric::l2, Metric::inner_product}) {
                const Problem p = random_problem(
                        49, k, d, metric, false, 1, uint32_t(d + k));
                on_each_engine([&](const Engine& engine) {
                    check_all(engine, p, std::min<size_t>(k, 3));
                });
            }
        }
    }
}

TEST_CASE("engines are exact for the m best, m up to k") {
    const Problem p = random_problem(29, 300, 5, Metric::l2, false, 2, 31);
    const Problem q =
            random_problem(29, 300, 5, Metric::inner_product, false, 0, 32);
    for (const size_t m : {1, 2, 3, 16, 17, 255, 256, 257, 299, 300}) {
        on_each_engine([&](const Engine& engine) {
            check_nearest(engine, p, m);
            check_nearest(engine, q, m);
            check_responsibilities(engine, p, m);
        });
    }
}

TEST_CASE("engines are exact for thousands of centroids and few vectors") {
    // soft chunks hold fewer rows than a block row when k is large
    const Problem p = random_problem(37, 5003, 7, Metric::l2, true, 1, 41);
    on_each_engine([&](const Engine& engine) { check_all(engine, p, 17); });
    const Problem q = random_problem(3, 4099, 3, Metric::l2, false, 1, 42);
    on_each_engine([&](const Engine& engine) { check_all(engine, q, 4099); });
}

TEST_CASE("engines are exact over several chunks") {
    // hard passes take 65472 rows at a time
    const Problem hard = random_problem(131100, 5, 3, Metric::l2, true, 0, 51);
    // soft ones 2²³ / k, here 2784
    const Problem soft =
            random_problem(6007, 3011, 2, Metric::l2, true, 0.5, 52);
    check_hard(cpu_engine(), hard);
    check_soft(cpu_engine(), soft);
}

TEST_CASE("engines are exact on real vectors") {
    const Rows all = real_rows(3000);
    Rows centroids{61, all.d, {}};
    for (size_t c = 0; c < centroids.n; c++) {
        const float* row = all.row(37 * c);
        centroids.x.insert(centroids.x.end(), row, row + all.d);
    }
    for (const Metric metric : {Metric::l2, Metric::inner_product}) {
        Problem p = make_problem(
                "wallsift", centroid_model(centroids, metric), all);
        if (metric == Metric::l2) {
            p = as_mixture(std::move(p), 1, 61);
        }
        on_each_engine([&](const Engine& engine) { check_all(engine, p, 5); });
    }
}

TEST_CASE("engines read vectors at any float's address", "[sanitize]") {
    const size_t n = 101, d = 13;
    const Problem p = random_problem(n, 40, d, Metric::l2, false, 1, 71);
    on_each_engine([&](const Engine& engine) {
        const Nearest expected = nearest(engine, p, 3);
        for (size_t offset = 0; offset < 4; offset++) {
            // not-a-number around the vectors: nobody may read it
            std::vector<float> buffer(n * d + 64, NAN);
            float* x = buffer.data() + 16 + offset;
            std::copy(p.rows.x.begin(), p.rows.x.end(), x);
            Nearest found = expected;
            engine.nearest(
                    p.model, n, x, 3, found.labels.data(), found.dist.data());
            CHECK(found.labels == expected.labels);
            CHECK(same_bytes(found.dist, expected.dist));

            const auto source = faiss_flash::array_source(n, d, x, nullptr);
            for (const Pass pass : {Pass::hard, Pass::soft}) {
                Statistics stats;
                engine.open(*source)->accumulate(p.model, pass, stats);
                const Statistics in_place = accumulate(engine, p, pass);
                CHECK(same_bytes(stats.sums, in_place.sums));
                CHECK(same_bytes(stats.energy, in_place.energy));
            }
        }
    });
}

TEST_CASE("the lowest number wins among equal centroids", "[per_engine]") {
    const Engine& engine = get_engine();
    // every centroid three times, in different lanes, panels and tiles
    for (const size_t distinct : {1, 5, 100, 300}) {
        const Rows base = normal_rows(distinct, 9, 81);
        Rows centroids{3 * distinct, 9, {}};
        for (int copy = 0; copy < 3; copy++) {
            centroids.x.insert(centroids.x.end(), base.x.begin(), base.x.end());
        }
        for (const Metric metric : {Metric::l2, Metric::inner_product}) {
            Problem p = make_problem(
                    "copies of " + std::to_string(distinct),
                    centroid_model(centroids, metric),
                    normal_rows(50, 9, 82));
            const auto check = [&] {
                const Nearest one = nearest(engine, p, 1);
                const Nearest three = nearest(engine, p, 3);
                for (size_t i = 0; i < p.n(); i++) {
                    const idx_t label = one.labels[i];
                    CHECK(label < (idx_t)distinct);
                    for (size_t j = 0; j < 3; j++) {
                        CHECK(three.labels[i * 3 + j] ==
                              label + (idx_t)(j * distinct));
                    }
                }
                check_hard(engine, p);
                check_nearest(engine, p, std::min<size_t>(3 * distinct, 7));
            };
            on_each_instruction_set(check);
        }
        Problem p = as_mixture(
                make_problem(
                        "copies",
                        centroid_model(centroids),
                        normal_rows(50, 9, 82)),
                1,
                83);
        for (size_t c = distinct; c < 3 * distinct; c++) {
            p.model.variances[c] = p.model.variances[c - distinct];
            p.model.weights[c] = p.model.weights[c - distinct];
        }
        on_each_instruction_set([&] {
            const Responsibilities three = responsibilities(engine, p, 3);
            for (size_t i = 0; i < p.n(); i++) {
                const idx_t label = three.labels[i * 3];
                CHECK(label < (idx_t)distinct);
                CHECK(three.labels[i * 3 + 1] == label + (idx_t)distinct);
                CHECK(three.labels[i * 3 + 2] == label + 2 * (idx_t)distinct);
            }
            check_soft(engine, p);
        });
    }
}

namespace {

/// Problems that strain single precision.
std::vector<Problem> awkward_problems() {
    std::vector<Problem> problems;
    const auto add = [&](const char* name,
                         const Rows& rows,
                         const Rows& centroids,
                         double scale) {
        Problem p = make_problem(name, centroid_model(centroids), rows);
        problems.push_back(as_mixture(p, scale, 91));
        p.model.metric = Metric::inner_product;
        problems.push_back(p);
    };
    const size_t n = 103, k = 41;
    for (const size_t d : {5, 96}) {
        add("norms of 1e15",
            normal_rows(n, d, 92, 1e15),
            normal_rows(k, d, 93, 1e15),
            1);
        add("norms of 1e15 and of 1",
            normal_rows(n, d, 92, 1),
            normal_rows(k, d, 93, 1e15),
            1);
        add("values of 1e-10",
            normal_rows(n, d, 92, 1e-10),
            normal_rows(k, d, 93, 1e-10),
            1);
        add("offset 1e4, spread 0.1",
            normal_rows(n, d, 92, 0.1, 1e4),
            normal_rows(k, d, 93, 0.1, 1e4),
            1);
        add("offset -1e6, spread 1",
            normal_rows(n, d, 92, 1, -1e6),
            normal_rows(k, d, 93, 1, -1e6),
            1);
        add("vectors far from all centroids",
            normal_rows(n, d, 92, 1, 100),
            normal_rows(k, d, 93, 1),
            0.01);

        Rows rows = normal_rows(n, d, 92), centroids = normal_rows(k, d, 93);
        for (size_t i = 0; i < n; i++) {
            rows.x[i * d] = 7e5f;
            rows.x[i * d + d - 1] = -3;
        }
        for (size_t c = 0; c < k; c++) {
            centroids.x[c * d] = 7e5f;
            centroids.x[c * d + d - 1] = 2;
        }
        add("constant columns", rows, centroids, 1);

        centroids.x.assign(rows.x.begin(), rows.x.begin() + k * d);
        add("vectors on their centroids", rows, centroids, 1);

        rows = normal_rows(n, d, 92);
        centroids = normal_rows(k, d, 93);
        for (size_t c = 0; c < k; c += 4) {
            for (size_t j = 0; j < d; j++) {
                centroids.x[c * d + j] += 3e5f;
            }
        }
        add("a quarter of the centroids far away", rows, centroids, 1);

        add(
                "small integers",
                [&] {
                    Rows r = normal_rows(n, d, 94, 2);
                    for (float& v : r.x) {
                        v = std::round(v);
                    }
                    return r;
                }(),
                [&] {
                    Rows r = normal_rows(k, d, 95, 2);
                    for (float& v : r.x) {
                        v = std::round(v);
                    }
                    return r;
                }(),
                1);
        add("all vectors and centroids zero",
            Rows{n, d, std::vector<float>(n * d)},
            Rows{k, d, std::vector<float>(k * d)},
            1);
    }
    return problems;
}

} // namespace

TEST_CASE("engines are exact on data that strains single precision") {
    for (const Problem& p : awkward_problems()) {
        on_each_engine([&](const Engine& engine) { check_all(engine, p, 4); });
    }
}

TEST_CASE("engines rank as far as single precision reaches in tiny numbers") {
    // squares of 1e-20 are denormal, those of 1e-25 and of denormals are 0
    for (const double spread : {1e-20, 1e-25, 1e-40}) {
        const Problem p = make_problem(
                "values of " + std::to_string(spread),
                centroid_model(normal_rows(33, 12, 101, spread)),
                normal_rows(40, 12, 102, spread));
        on_each_engine([&](const Engine& engine) {
            check_hard(engine, p);
            check_nearest(engine, p, 33);
        });
    }
}

TEST_CASE("engines give labels for finite vectors whose norms overflow") {
    // ‖x‖² is above the largest float, x·c is not
    const Problem p = make_problem(
            "norms of 1e25",
            centroid_model(normal_rows(33, 12, 103), Metric::inner_product),
            normal_rows(40, 12, 104, 1e25));
    on_each_engine([&](const Engine& engine) {
        check_nearest(engine, p, 1);
        check_nearest(engine, p, 5);
        const Statistics stats = accumulate(engine, p, Pass::hard);
        const Nearest found = nearest(engine, p, 1);
        std::vector<int64_t> members(p.k());
        for (const idx_t label : found.labels) {
            members[label]++;
        }
        CHECK(stats.members == members);
    });
    // all distances overflow: any labels, but valid and distinct ones
    Problem far = p;
    far.model.metric = Metric::l2;
    far = as_mixture(far, 1, 105);
    std::fill(far.model.variances.begin(), far.model.variances.end(), 1e-3f);
    on_each_engine([&](const Engine& engine) {
        for (const Nearest& found :
             {nearest(engine, far, 5),
              Nearest{responsibilities(engine, far, 5).labels, {}}}) {
            for (size_t i = 0; i < far.n(); i++) {
                std::set<idx_t> seen;
                for (size_t j = 0; j < 5; j++) {
                    const idx_t label = found.labels[i * 5 + j];
                    CHECK(label >= -1);
                    CHECK(label < (idx_t)far.k());
                    CHECK((label == -1 || seen.insert(label).second));
                }
                CHECK(!seen.empty());
            }
        }
        const Statistics stats = accumulate(engine, far, Pass::soft);
        double count = 0;
        for (const double c : stats.counts) {
            count += c;
        }
        CHECK(std::abs(count - far.n()) <= 1e-6 * far.n());
        CHECK(!std::isnan(stats.log_likelihood));
    });
}

TEST_CASE("responsibilities are exact from one component to all") {
    // scale: from near-hard assignment to every component holding a share
    for (const double scale : {1e-4, 1e-2, 0.1, 1.0, 10.0, 1e3}) {
        Problem p = random_problem(
                64, 70, 10, Metric::l2, true, scale, uint32_t(110));
        p.name += ", scale " + std::to_string(scale);
        p.model.weights[3] = 0; // never chosen
        on_each_engine([&](const Engine& engine) {
            check_soft(engine, p);
            check_responsibilities(engine, p, 1);
            check_responsibilities(engine, p, 69);
            CHECK(accumulate(engine, p, Pass::soft).counts[3] == 0);
        });
    }
}

TEST_CASE("what a soft pass drops is below its bound, vector by vector") {
    // many components at the edge of what is kept
    const size_t k = 400, d = 3;
    Rows centroids = normal_rows(k, d, 121, 3);
    Problem all = make_problem(
            "edge", centroid_model(centroids), normal_rows(60, d, 122, 2));
    all = as_mixture(all, 2, 123);
    double most = 0;
    for (size_t i = 0; i < all.n(); i++) {
        Rows one{1, d, {all.rows.row(i), all.rows.row(i) + d}};
        Problem p = make_problem("one vector", all.model, one);
        check_soft(cpu_engine(), p);
        most = std::max(
                most, accumulate(cpu_engine(), p, Pass::soft).dropped_mass);
    }
    CHECK(most > 0); // something was dropped: the bound was tested
    CHECK(most == accumulate(cpu_engine(), all, Pass::soft).dropped_mass);
}

TEST_CASE(
        "permuting vectors permutes what engines say of them",
        "[per_engine]") {
    const Engine& engine = get_engine();
    const Problem p = random_problem(257, 50, 11, Metric::l2, false, 1, 131);
    std::vector<size_t> order(p.n());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(132));
    Problem q = p;
    for (size_t i = 0; i < p.n(); i++) {
        std::copy_n(p.rows.row(order[i]), p.d(), q.rows.x.begin() + i * p.d());
    }
    const Nearest a = nearest(engine, p, 3), b = nearest(engine, q, 3);
    const Responsibilities r = responsibilities(engine, p, 3);
    const Responsibilities s = responsibilities(engine, q, 3);
    size_t different = 0;
    for (size_t i = 0; i < p.n(); i++) {
        for (size_t j = 0; j < 3; j++) {
            const size_t from = order[i] * 3 + j, to = i * 3 + j;
            different += a.labels[from] != b.labels[to];
            different += a.dist[from] != b.dist[to];
            different += r.labels[from] != s.labels[to];
            different += r.r[from] != s.r[to];
        }
        different += r.log_likelihood[order[i]] != s.log_likelihood[i];
    }
    CHECK(different == 0);
    CHECK(accumulate(engine, p, Pass::hard).members ==
          accumulate(engine, q, Pass::hard).members);
}

TEST_CASE(
        "engines give the same bytes with any number of threads",
        "[per_engine][sanitize]") {
    const Engine& engine = get_engine();
    const Problem p = random_problem(1000, 70, 13, Metric::l2, true, 1, 141);
    struct Output {
        Nearest near;
        Responsibilities resp;
        Statistics hard, soft;
    };
    const auto run = [&](int threads) {
        Threads scope(threads);
        return Output{
                nearest(engine, p, 4),
                responsibilities(engine, p, 4),
                accumulate(engine, p, Pass::hard),
                accumulate(engine, p, Pass::soft)};
    };
    const auto check_same = [](const Statistics& a, const Statistics& b) {
        CHECK(same_bytes(a.sums, b.sums));
        CHECK(same_bytes(a.counts, b.counts));
        CHECK(same_bytes(a.energy, b.energy));
        CHECK(a.members == b.members);
        CHECK(a.objective == b.objective);
        CHECK(a.log_likelihood == b.log_likelihood);
        CHECK(a.total_weight == b.total_weight);
        CHECK(a.entries == b.entries);
        CHECK(a.dropped_mass == b.dropped_mass);
    };
    const Output one = run(1);
    for (const int threads : {2, 3, 7}) {
        INFO(threads << " threads");
        const Output many = run(threads);
        CHECK(one.near.labels == many.near.labels);
        CHECK(same_bytes(one.near.dist, many.near.dist));
        CHECK(one.resp.labels == many.resp.labels);
        CHECK(same_bytes(one.resp.r, many.resp.r));
        CHECK(same_bytes(one.resp.log_likelihood, many.resp.log_likelihood));
        check_same(one.hard, many.hard);
        check_same(one.soft, many.soft);
    }
    CHECK(omp_get_max_threads() >= 1);
}

TEST_CASE("engines work from several threads at once", "[sanitize]") {
    const Problem p = random_problem(500, 40, 13, Metric::l2, false, 1, 151);
    const Nearest expected = nearest(cpu_engine(), p, 2);
    std::vector<int> wrong(4);
#pragma omp parallel for num_threads(4)
    for (int t = 0; t < 4; t++) {
        const Nearest found = nearest(cpu_engine(), p, 2);
        wrong[t] = found.labels != expected.labels ||
                !same_bytes(found.dist, expected.dist);
    }
    CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("engines take no vectors as well", "[per_engine]") {
    Problem p = random_problem(1, 5, 3, Metric::l2, false, 1, 161);
    p.rows = Rows{0, 3, {}};
    const Engine& engine = get_engine();
    engine.nearest(p.model, 0, nullptr, 2, nullptr, nullptr);
    engine.responsibilities(p.model, 0, nullptr, 2, nullptr, nullptr, nullptr);
    for (const Pass pass : {Pass::hard, Pass::soft}) {
        const Statistics stats = accumulate(engine, p, pass);
        CHECK(stats.n == 0);
        CHECK(stats.sums == std::vector<double>(15));
        CHECK(stats.total_weight == 0);
    }
}

TEST_CASE(
        "a soft pass and a hard pass agree when variances vanish",
        "[per_engine]") {
    // the limit of EM is k-means: one share per vector, same statistics
    const Engine& engine = get_engine();
    Problem p = random_problem(200, 20, 16, Metric::l2, true, 1, 171);
    std::fill(p.model.variances.begin(), p.model.variances.end(), 1e-5f);
    std::fill(p.model.weights.begin(), p.model.weights.end(), 1 / 20.0f);
    const Statistics hard = accumulate(engine, p, Pass::hard);
    const Statistics soft = accumulate(engine, p, Pass::soft);
    CHECK(hard.members == soft.members);
    Worst sums;
    for (size_t j = 0; j < hard.sums.size(); j++) {
        sums.see(std::abs(hard.sums[j] - soft.sums[j]), 1e-6 * p.n(), j);
    }
    CHECK_WORST(sums);
}

TEST_CASE("the engine asked for is the one that runs") {
    EnvironmentVariable unset("FAISS_FLASH_ENGINE", nullptr);
    CHECK(&get_engine("reference") == &reference_engine());
    CHECK(&get_engine("cpu") == &cpu_engine());
    CHECK(std::string(get_engine("reference").name()) == "reference");
    CHECK(std::string(get_engine("cpu").name()) == "cpu");
    CHECK(get_engine("auto").name() == faiss_flash::engine_names().front());
    for (const std::string& name : faiss_flash::engine_names()) {
        CHECK(get_engine(name).name() == name);
    }

    SECTION("FAISS_FLASH_ENGINE overrides") {
        EnvironmentVariable set("FAISS_FLASH_ENGINE", "reference");
        CHECK(&get_engine("cpu") == &reference_engine());
        CHECK(&get_engine() == &reference_engine());
    }
    SECTION("unless it is empty") {
        EnvironmentVariable set("FAISS_FLASH_ENGINE", "");
        CHECK(&get_engine("reference") == &reference_engine());
    }
    SECTION("an unknown engine is an error that lists those there are") {
        for (const char* name : {"gpu", "", "CPU", "cpu "}) {
            const std::string message = message_of([&] { get_engine(name); });
            CHECK(message.find(std::string("'") + name + "'") !=
                  std::string::npos);
            CHECK(message.find("auto, cpu, reference") != std::string::npos);
        }
        EnvironmentVariable set("FAISS_FLASH_ENGINE", "fpga");
        const std::string message = message_of([&] { get_engine("cpu"); });
        CHECK(message.find("'fpga'") != std::string::npos);
        CHECK(message.find("FAISS_FLASH_ENGINE") != std::string::npos);
    }
}

TEST_CASE("training runs on the engine asked for") {
    const Rows rows = blob_rows(200, 4, 3, 5, 181);
    faiss::ClusteringParameters cp;
    cp.niter = 2;
    cp.verbose = true;
    const auto engine_of = [&](const char* engine) {
        return captured(1, [&] {
            faiss_flash::FlashClustering clustering(4, 3, cp);
            clustering.engine = engine;
            faiss::IndexFlatL2 index(4);
            clustering.train(rows.n, rows.x.data(), index);
        });
    };
    using Catch::Matchers::ContainsSubstring;
    {
        EnvironmentVariable unset("FAISS_FLASH_ENGINE", nullptr);
        CHECK_THAT(engine_of("cpu"), ContainsSubstring("engine cpu"));
        CHECK_THAT(
                engine_of("reference"), ContainsSubstring("engine reference"));
    }
    EnvironmentVariable set("FAISS_FLASH_ENGINE", "reference");
    CHECK_THAT(engine_of("cpu"), ContainsSubstring("engine reference"));
}

TEST_CASE(
        "each test of all engines runs on the engine CTest names",
        "[per_engine]") {
    const char* asked = std::getenv("FAISS_FLASH_ENGINE");
    if (asked && *asked) {
        CHECK(std::string(get_engine().name()) == asked);
    } else {
        CHECK(get_engine().name() == faiss_flash::engine_names().front());
    }
}
