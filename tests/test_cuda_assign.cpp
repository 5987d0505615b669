// Assignment policies on the CUDA engine, from host and device memory.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <functional>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/cuda/device.h>
#include <tests/cuda_util.h>
#include <tests/index_util.h>
#include <tests/policy_oracle.h>

using namespace test;
using faiss_flash::assign_lists;
using faiss_flash::assign_lists_device;
using faiss_flash::DeviceArray;
using faiss_flash::VectorType;

namespace {

/// Lists of the problem's rows, by an engine.
std::vector<idx_t> lists_of(
        const AssignmentPolicy& policy,
        const Engine& engine,
        const Problem& p) {
    std::vector<idx_t> lists(p.n() * policy.list_limit(), -7);
    assign_lists(policy, engine, p.model, p.n(), p.rows.x.data(), lists.data());
    return lists;
}

/// The same from device memory.
template <class T>
std::vector<idx_t> device_lists(
        const AssignmentPolicy& policy,
        const Model& model,
        const std::vector<T>& x,
        VectorType type,
        void* stream = nullptr) {
    const size_t n = x.size() / model.d;
    std::vector<idx_t> lists(n * policy.list_limit(), -7);
    const DeviceArray<T> rows(x.size(), nullptr);
    const DeviceArray<idx_t> to(lists.size(), nullptr);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            rows.get(),
            x.data(),
            x.size() * sizeof(T),
            cudaMemcpyHostToDevice));
    FAISS_FLASH_CUDA_CHECK(
            cudaMemset(to.get(), 0x55, lists.size() * sizeof(idx_t)));
    FAISS_FLASH_CUDA_CHECK(cudaDeviceSynchronize());
    assign_lists_device(policy, model, n, rows.get(), type, to.get(), stream);
    FAISS_FLASH_CUDA_CHECK(
            cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            lists.data(),
            to.get(),
            lists.size() * sizeof(idx_t),
            cudaMemcpyDeviceToHost));
    return lists;
}

/// Rows that do not hang on rounding have the lists of the formulas; every
/// `stride`-th one is looked at.
void check_policy(
        const AssignmentPolicy& policy,
        const Problem& p,
        double least_compared = 0.5,
        size_t stride = 1) {
    const std::vector<idx_t> found = lists_of(policy, *cuda_engine(), p);
    const size_t limit = policy.list_limit();
    size_t compared = 0;
    for (size_t i = 0; i < p.n(); i += stride) {
        bool tight = false;
        const std::vector<idx_t> expected =
                slow_lists(policy, p.model, p.rows.row(i), tight, 4e-6, 1e-3);
        if (!tight) {
            const std::vector<idx_t> mine(
                    found.begin() + i * limit, found.begin() + (i + 1) * limit);
            INFO(p.name << ", " << to_string(policy.rule) << ", row " << i);
            CHECK(mine == expected);
            compared++;
        }
    }
    INFO(p.name << ", " << to_string(policy.rule));
    CHECK(compared >= least_compared * (p.n() / stride));
    // from device memory the same bytes
    CHECK(device_lists(policy, p.model, p.rows.x, VectorType::float32) ==
          found);
}

std::vector<AssignmentPolicy> some_policies(size_t k) {
    std::vector<AssignmentPolicy> policies;
    for (const AssignmentPolicy& policy : all_policies()) {
        if ((size_t)policy.list_limit() <= k) {
            policies.push_back(policy);
        }
    }
    policies.push_back(AssignmentPolicy::responsibility(0.4, 1));
    policies.push_back(AssignmentPolicy::top_m(1));
    if (k >= 2) {
        policies.push_back(AssignmentPolicy::top_m(2));
        policies.push_back(AssignmentPolicy::responsibility(1e-6));
    }
    return policies;
}

} // namespace

TEST_CASE("cuda: policies follow their formulas", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const size_t k : {1, 2, 20, 130, 1500}) {
        for (const size_t d : {1, 5, 96, 128, 200}) {
            // narrow, usual and wide components
            const double scale = d == 5 ? 0.1 : d == 96 ? 1 : d == 200 ? 50 : 3;
            const Problem p =
                    mixture(300, k, d, scale, false, uint32_t(7 * k + d));
            for (const AssignmentPolicy& policy : some_policies(k)) {
                check_policy(policy, p, d == 1 ? 0.05 : 0.5);
            }
        }
    }
}

namespace {

/// The rules that look at distances alone.
std::vector<AssignmentPolicy> distance_policies() {
    AssignmentPolicy few = AssignmentPolicy::soar();
    few.candidates = 5;
    return {AssignmentPolicy::top_m(3),
            AssignmentPolicy::top_m(8),
            AssignmentPolicy::top_m(16),
            AssignmentPolicy::closure(0.1),
            AssignmentPolicy::closure(0.5, 3),
            AssignmentPolicy::air(),
            AssignmentPolicy::air(0.5, true),
            AssignmentPolicy::air(0),
            AssignmentPolicy::soar(),
            AssignmentPolicy::soar(3),
            few};
}

/// Vectors and centroids, and nothing computed from them.
Problem bare_problem(const std::string& name, const Rows& x, const Rows& c) {
    Problem p;
    p.name = name;
    p.model = centroid_model(c);
    p.rows = x;
    return p;
}
Problem random_problem(size_t n, size_t k, size_t d, uint32_t seed) {
    return bare_problem(
            "n = " + std::to_string(n) + ", k = " + std::to_string(k) +
                    ", d = " + std::to_string(d),
            normal_rows(n, d, seed + 1),
            normal_rows(k, d, seed));
}

} // namespace

TEST_CASE("cuda: rules by distance at all sizes of groups", "[cuda]") {
    if (no_device()) {
        return;
    }
    struct Case {
        size_t n, k, d;
    };
    for (const Case& c :
         {Case{600, 512, 96},
          Case{700, 641, 1},
          Case{1100, 1000, 128},
          Case{1100, 1024, 36},
          Case{1100, 1025, 129},
          Case{2600, 2500, 20},
          Case{4200, 4096, 7},
          Case{500, 4097, 64},
          Case{300, 8192, 4},
          Case{300, 8193, 5},
          Case{600, 520, 1536}}) {
        const Problem p = random_problem(c.n, c.k, c.d, uint32_t(c.k + c.d));
        for (const AssignmentPolicy& policy : distance_policies()) {
            check_policy(policy, p, c.d <= 7 ? 0 : 0.4, 1 + p.n() / 100);
        }
    }
}

TEST_CASE("cuda: ties go to the lowest number", "[cuda]") {
    if (no_device()) {
        return;
    }
    // whole numbers: distances and products are exact for every engine
    const size_t n = 1500, k = 1024, d = 12;
    for (const int largest : {400, 30, 2}) {
        Problem p = random_problem(n, k, d, largest);
        std::mt19937 random(largest);
        for (float& v : p.rows.x) {
            v = random() % largest;
        }
        for (float& v : p.model.means) {
            v = random() % largest;
        }
        // equal centroids in pairs, and vectors on centroids
        for (size_t c = 0; c < 100; c++) {
            std::copy_n(
                    &p.model.means[c * d], d, &p.model.means[(k - 1 - c) * d]);
            std::copy_n(&p.model.means[c * d], d, &p.rows.x[c * 9 * d]);
        }
        for (const AssignmentPolicy& policy : distance_policies()) {
            if (policy.rule == AssignmentRule::soar) {
                continue; // divides
            }
            INFO(to_string(policy.rule) << " below " << largest);
            const std::vector<idx_t> expected =
                    lists_of(policy, faiss_flash::reference_engine(), p);
            CHECK(lists_of(policy, *cuda_engine(), p) == expected);
            CHECK(device_lists(
                          policy, p.model, p.rows.x, VectorType::float32) ==
                  expected);
        }
    }
}

TEST_CASE("cuda: rules by distance on awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = 1200, k = 1100, d = 40;
    auto check = [&](const char* name,
                     double least_compared,
                     const std::function<void(Rows&, Rows&)>& change) {
        Rows x = normal_rows(n, d, 91), c = normal_rows(k, d, 92);
        change(x, c);
        const Problem p = bare_problem(name, x, c);
        for (const AssignmentPolicy& policy : distance_policies()) {
            check_policy(policy, p, least_compared, 11);
        }
    };
    check("far vectors and centroids", 0.4, [&](Rows& x, Rows& c) {
        for (size_t i = 0; i < n; i += 55) {
            x.x[i * d + i % d] = 1e8f;
        }
        for (size_t i = 3; i < k; i += 300) {
            c.x[i * d] = -1e6f;
        }
    });
    check("most centroids far out", 0.4, [&](Rows&, Rows& c) {
        for (size_t i = 12; i < k; i++) {
            c.x[i * d + i % d] += 1e3f * (1 + i);
        }
    });
    check("constant offset", 0, [](Rows& x, Rows& c) {
        for (float& v : x.x) {
            v += 3e3f;
        }
        for (float& v : c.x) {
            v += 3e3f;
        }
    });
    check("long and short vectors", 0.4, [&](Rows& x, Rows&) {
        for (size_t i = 0; i < x.x.size(); i++) {
            x.x[i] *= std::exp2(float(i / d % 12) - 6);
        }
    });
    check("tiny", 0, [](Rows& x, Rows& c) {
        for (float& v : x.x) {
            v *= 1e-15f;
        }
        for (float& v : c.x) {
            v *= 1e-15f;
        }
    });
}

TEST_CASE("cuda: lists by shares of diagonal mixtures", "[cuda]") {
    if (no_device()) {
        return;
    }
    for (const size_t k : {2, 40, 300, 1500}) {
        for (const size_t d : {5, 96, 128, 200}) {
            const double scale = d == 5 ? 0.1 : d == 96 ? 1 : d == 200 ? 50 : 3;
            const Problem p = as_diagonal(
                    mixture(300, k, d, scale, false, uint32_t(7 * k + d)),
                    uint32_t(d),
                    k == 40);
            const size_t stride = k < 1000 ? 1 : 10;
            check_policy(AssignmentPolicy::responsibility(), p, 0.5, stride);
            check_policy(
                    AssignmentPolicy::responsibility(0.4, 1), p, 0.5, stride);
            check_policy(
                    AssignmentPolicy::responsibility(1e-6), p, 0.5, stride);
            if (k > 8) {
                check_policy(
                        AssignmentPolicy::responsibility(0.01, 8),
                        p,
                        0.5,
                        stride);
            }
        }
    }
}

TEST_CASE("cuda: policies on awkward data", "[cuda]") {
    if (no_device()) {
        return;
    }
    auto check = [&](Problem p, double least_compared) {
        for (const AssignmentPolicy& policy : some_policies(p.k())) {
            check_policy(policy, p, least_compared);
        }
    };
    {
        Problem p = mixture(200, 150, 24, 1, false, 21);
        Rows x = p.rows, c = normal_rows(150, 24, 21);
        for (float& v : x.x) {
            v += 1e4f;
        }
        for (float& v : c.x) {
            v += 1e4f;
        }
        check(as_mixture(
                      make_problem("constant offset", centroid_model(c), x),
                      1,
                      22),
              0.05);
    }
    {
        Rows x = normal_rows(200, 24, 23), c = normal_rows(150, 24, 24);
        for (size_t i = 0; i < x.x.size(); i += 50 * x.d) {
            x.x[i] = 1e9f;
        }
        c.x[5] = -1e7f;
        Problem p = make_problem("far outliers", centroid_model(c), x);
        p.model.variances.assign(150, 1);
        p.model.weights.assign(150, 1.0f / 150);
        check(p, 0.4);
    }
    {
        // a component on one vector, and one that nobody belongs to
        Problem p = mixture(200, 150, 24, 1, false, 25);
        std::copy_n(p.rows.row(3), 24, &p.model.means[7 * 24]);
        p.model.variances[7] = 1e-12f;
        p.model.weights[9] = 0;
        check(make_problem("collapsed, no weight", p.model, p.rows), 0.3);
    }
}

TEST_CASE("cuda: equal centroids give lists all the same", "[cuda]") {
    if (no_device()) {
        return;
    }
    Rows x = normal_rows(300, 24, 31), c = normal_rows(200, 24, 32);
    for (size_t i = 1; i < c.n; i++) {
        std::copy_n(c.row(i / 70), c.d, &c.x[i * c.d]);
    }
    Problem p = as_mixture(
            make_problem("equal centroids", centroid_model(c), x), 1, 33);
    p.model.variances.assign(200, p.model.variances[0]);
    p.model.weights.assign(200, 1.0f / 200);
    for (const AssignmentPolicy& policy : some_policies(200)) {
        const size_t limit = policy.list_limit();
        const std::vector<idx_t> found = lists_of(policy, *cuda_engine(), p);
        for (size_t i = 0; i < p.n(); i++) {
            const idx_t* row = found.data() + i * limit;
            // the lowest number of the nearest ones
            const double* dist = p.dist.data() + i * 200;
            const idx_t nearest = std::min_element(dist, dist + 200) - dist;
            CHECK(row[0] == nearest);
            for (size_t j = 1; j < limit; j++) {
                CHECK((row[j] >= -1 && row[j] < 200));
                CHECK((row[j] < 0 || row[j - 1] >= 0));
                CHECK((row[j] < 0 || std::count(row, row + j, row[j]) == 0));
            }
        }
    }
}

TEST_CASE("cuda: lists of vectors of any type", "[cuda]") {
    if (no_device()) {
        return;
    }
    const size_t n = 3000, k = 300, d = 36;
    std::mt19937 random(41);
    std::vector<uint8_t> bytes(n * d);
    for (uint8_t& b : bytes) {
        b = random() % 200;
    }
    Rows x;
    x.n = n;
    x.d = d;
    x.x.assign(bytes.begin(), bytes.end());
    Rows c;
    c.n = k;
    c.d = d;
    c.x.assign(x.x.begin(), x.x.begin() + k * d);
    for (float& v : c.x) {
        v += 0.25f * (random() % 8);
    }
    const Problem p =
            as_mixture(make_problem("bytes", centroid_model(c), x), 1, 42);
    std::vector<__half> halves(x.x.begin(), x.x.end());
    std::vector<__nv_bfloat16> brains(x.x.begin(), x.x.end());
    cudaStream_t stream;
    FAISS_FLASH_CUDA_CHECK(cudaStreamCreate(&stream));
    for (const AssignmentPolicy& policy : some_policies(k)) {
        INFO(to_string(policy.rule));
        const std::vector<idx_t> expected = lists_of(policy, *cuda_engine(), p);
        CHECK(device_lists(policy, p.model, x.x, VectorType::float32, stream) ==
              expected);
        CHECK(device_lists(policy, p.model, halves, VectorType::float16) ==
              expected);
        CHECK(device_lists(policy, p.model, brains, VectorType::bfloat16) ==
              expected);
        CHECK(device_lists(policy, p.model, bytes, VectorType::uint8) ==
              expected);
    }
    FAISS_FLASH_CUDA_CHECK(cudaStreamDestroy(stream));
}

TEST_CASE("cuda: more vectors than are copied at once", "[cuda]") {
    if (no_device()) {
        return;
    }
    // chunks of 2¹⁴ rows, and the last one not full
    const size_t n = 70000, d = 1200;
    Rows x = normal_rows(2000, d, 51);
    for (size_t i = 2000; i < n; i++) {
        x.x.insert(x.x.end(), x.row(i % 2000), x.row(i % 2000) + d);
    }
    x.n = n;
    for (const size_t k : {40, 600}) {
        Model model = centroid_model(normal_rows(k, d, 52));
        model.variances.assign(k, 1);
        model.weights.assign(k, 1.0f / k);
        for (const AssignmentPolicy& policy :
             {AssignmentPolicy::air(),
              AssignmentPolicy::soar(),
              AssignmentPolicy::closure(0.02),
              AssignmentPolicy::nearest(),
              AssignmentPolicy::top_m(2),
              AssignmentPolicy::top_m(3),
              AssignmentPolicy::responsibility()}) {
            const size_t limit = policy.list_limit();
            std::vector<idx_t> lists(n * limit, -7), first(2000 * limit, -7);
            assign_lists(
                    policy, *cuda_engine(), model, n, x.x.data(), lists.data());
            assign_lists(
                    policy,
                    *cuda_engine(),
                    model,
                    2000,
                    x.x.data(),
                    first.data());
            size_t wrong = 0;
            for (size_t i = 0; i < n * limit; i++) {
                wrong += lists[i] != first[i % (2000 * limit)];
            }
            INFO(to_string(policy.rule) << ", k = " << k);
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE(
        "cuda: policies with more candidates than the device looks at",
        "[cuda]") {
    if (no_device()) {
        return;
    }
    const Problem p = mixture(150, 120, 12, 1, false, 61);
    AssignmentPolicy many = AssignmentPolicy::air();
    many.candidates = 40;
    check_policy(many, p);
    check_policy(AssignmentPolicy::top_m(17), p, 0.3);
}

TEST_CASE("cuda: bad pointers for lists on the device", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Model model = centroid_model(normal_rows(4, 3, 71));
    std::vector<float> x(30);
    std::vector<idx_t> lists(20);
    const DeviceArray<float> rows(30, nullptr);
    const AssignmentPolicy policy = AssignmentPolicy::air();
    check_throws(
            [&] {
                assign_lists_device(
                        policy,
                        model,
                        10,
                        x.data(),
                        VectorType::float32,
                        lists.data());
            },
            {"assign_lists_device", "x = ", "memory of CUDA device"});
    check_throws(
            [&] {
                assign_lists_device(
                        policy,
                        model,
                        10,
                        rows.get(),
                        VectorType::float32,
                        lists.data());
            },
            {"assign_lists_device", "lists = ", "memory of CUDA device"});
}

TEST_CASE("cuda: assigning survives a lack of device memory", "[cuda]") {
    if (no_device()) {
        return;
    }
    const Problem p = mixture(3000, 50, 16, 1, false, 81);
    const AssignmentPolicy policy = AssignmentPolicy::responsibility();
    const std::vector<idx_t> expected = lists_of(policy, *cuda_engine(), p);
    for (int failing : {1, 5, 20}) {
        faiss_flash::fail_device_allocation(failing);
        CHECK(lists_of(policy, *cuda_engine(), p) == expected);
        faiss_flash::fail_device_allocation(0);
    }
}
