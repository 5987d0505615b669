// Random sequences of operations against a brute-force model that knows
// nothing of lists, for every class, policy and direct map.
//
// FAISS_FLASH_MODEL_SEQUENCES in the environment: another number of sequences
// per class, policy and direct map. FAISS_FLASH_MODEL_SEED: the first seed.

#include <faiss_flash/ivf/vector_count.h>
#include <tests/model_driver.h>

#include <cstdlib>

#include <omp.h>

using namespace faiss_flash;
using namespace test;

namespace {

size_t from_environment(const char* name, size_t otherwise) {
    const char* value = std::getenv(name);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}

/// What is wrong about one sequence; empty if nothing is.
template <class T>
std::string run_one(Driver<T>& driver) {
    try {
        driver.run(14);
    } catch (const Mismatch& mismatch) {
        return mismatch.what;
    } catch (const std::exception& e) {
        return e.what();
    }
    return "";
}

/// Sequences for every policy and direct map, each with a seed of its own
/// unless the environment names one.
template <class T>
void run_sequences(const Pool<T>& pool, bool repeat_ids, size_t nsequence) {
    nsequence = from_environment("FAISS_FLASH_MODEL_SEQUENCES", nsequence);
    const size_t no_seed = size_t(-1);
    const size_t given = from_environment("FAISS_FLASH_MODEL_SEED", no_seed);
    const std::vector<AssignmentPolicy> policies = {
            AssignmentPolicy::nearest(),
            AssignmentPolicy::top_m(3),
            AssignmentPolicy::responsibility(0.02, 3),
            AssignmentPolicy::closure(0.4, 4),
            AssignmentPolicy::air(),
            AssignmentPolicy::soar()};
    const int nthread = omp_get_max_threads();
    size_t nrun = 0, nfailed = 0;
    for (const AssignmentPolicy& policy : policies) {
        for (const auto map :
             {DirectMap::NoMap, DirectMap::Array, DirectMap::Hashtable}) {
            for (size_t i = 0; i < nsequence && nfailed == 0; i++) {
                const size_t seed = given == no_seed ? nrun : given + i;
                nrun++;
                // more threads than cores, but not always: they cost time
                omp_set_num_threads(seed % 8 == 0 ? 3 : 1);
                Driver<T> driver(pool, policy, map, repeat_ids, seed);
                const std::string wrong = run_one(driver);
                if (!wrong.empty()) {
                    nfailed++;
                    UNSCOPED_INFO(
                            wrong << "\npolicy " << to_string(policy.rule)
                                  << ", direct map " << map << ", seed " << seed
                                  << "\n"
                                  << driver.log());
                }
            }
        }
    }
    omp_set_num_threads(nthread);
    CHECK(nfailed == 0);
    CHECK(nrun == policies.size() * 3 * nsequence);
}

faiss::MetricType both_metrics() {
    return GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
}

} // namespace

TEST_CASE("model: flat indexes do what brute force does") {
    const auto metric = both_metrics();
    const Pool<IndexIVFFlatFlash> pool(metric, [&](faiss::Index* quantizer) {
        return std::make_unique<IndexIVFFlatFlash>(quantizer, 8, 5, metric);
    });
    run_sequences(pool, false, 100);
}

TEST_CASE("model: PQ indexes do what brute force does") {
    const auto metric = both_metrics();
    const bool by_residual = GENERATE(true, false);
    const Pool<IndexIVFPQFlash> pool(metric, [&](faiss::Index* quantizer) {
        auto index = std::make_unique<IndexIVFPQFlash>(
                quantizer, 8, 5, 2, 8, metric);
        index->by_residual = by_residual;
        return index;
    });
    run_sequences(pool, false, 50);
}

TEST_CASE("model: scalar-quantizer indexes do what brute force does") {
    const auto metric = both_metrics();
    const bool by_residual = GENERATE(true, false);
    using Index = IndexIVFScalarQuantizerFlash;
    const Pool<Index> pool(metric, [&](faiss::Index* quantizer) {
        return std::make_unique<Index>(
                quantizer,
                8,
                5,
                faiss::ScalarQuantizer::QT_8bit,
                metric,
                by_residual);
    });
    run_sequences(pool, false, 50);
}

TEST_CASE("model: several vectors under one id") {
    const auto metric = both_metrics();
    const Pool<IndexIVFFlatFlash> pool(metric, [&](faiss::Index* quantizer) {
        return std::make_unique<IndexIVFFlatFlash>(quantizer, 8, 5, metric);
    });
    run_sequences(pool, true, 50);
}
