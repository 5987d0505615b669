// What holds for every engine whatever the numbers are: addresses, ties,
// order, threads; and which engine runs.

#include <faiss/IndexFlat.h>

#include <faiss_flash/FlashClustering.h>
#include <tests/engine_util.h>

using namespace test;

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

TEST_CASE("ties between whole numbers go to the lowest number") {
    // few values, so that many distances are equal: FAISS ranks them exactly
    std::mt19937 random(85);
    for (const float offset : {0.0f, 100.0f, -7.25f}) {
        Rows rows{300, 6, {}}, centroids{90, 6, {}};
        for (Rows* r : {&rows, &centroids}) {
            for (size_t i = 0; i < r->n * r->d; i++) {
                r->x.push_back(offset + float(random() % 4));
            }
        }
        const Problem p =
                make_problem("whole numbers", centroid_model(centroids), rows);
        on_each_engine([&](const Engine& engine) {
            const Nearest found = nearest(engine, p, 1);
            size_t wrong = 0, ties = 0;
            for (size_t i = 0; i < p.n(); i++) {
                const auto begin = p.dist.begin() + i * p.k();
                const auto first = std::min_element(begin, begin + p.k());
                wrong += found.labels[i] != first - begin;
                ties += std::count(begin, begin + p.k(), *first) > 1;
            }
            CHECK(wrong == 0);
            CHECK(ties > 100);
            const Statistics stats = accumulate(engine, p, Pass::hard);
            CHECK(stats.objective ==
                  std::accumulate(found.dist.begin(), found.dist.end(), 0.0));
        });
    }
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
    CHECK(&get_engine("auto", 1e12) == &get_engine("auto"));
    CHECK(&get_engine("auto", 1) == &cpu_engine());
    CHECK(&get_engine("reference", 1) == &reference_engine());
    for (const std::string& name : faiss_flash::engine_names()) {
        CHECK(get_engine(name).name() == name);
    }

    SECTION("FAISS_FLASH_ENGINE overrides") {
        EnvironmentVariable set("FAISS_FLASH_ENGINE", "reference");
        CHECK(&get_engine("cpu") == &reference_engine());
        CHECK(&get_engine() == &reference_engine());
        CHECK(&get_engine("auto", 1) == &reference_engine());
    }
    SECTION("unless it is empty") {
        EnvironmentVariable set("FAISS_FLASH_ENGINE", "");
        CHECK(&get_engine("reference") == &reference_engine());
    }
    SECTION("an unknown engine is an error that lists those there are") {
        std::string known = "auto";
        for (const std::string& name : faiss_flash::engine_names()) {
            known += ", " + name;
        }
        for (const char* name : {"gpu", "", "CPU", "cpu "}) {
            const std::string message = message_of([&] { get_engine(name); });
            CHECK(message.find(std::string("'") + name + "'") !=
                  std::string::npos);
            CHECK(message.find(known) != std::string::npos);
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
