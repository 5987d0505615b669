// Indexes from descriptions, and descriptions of indexes.

#include <tests/index_util.h>

#include <typeinfo>

#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/index_factory.h>

#include <faiss_flash/ivf/IndexUnique.h>
#include <faiss_flash/ivf/index_factory.h>

using namespace faiss_flash;
using namespace test;

namespace {

/// The class of what a pointer of any kind points to.
template <class Pointer>
const std::type_info& type_of(const Pointer& pointer) {
    const auto& object = *pointer;
    return typeid(object);
}

constexpr int d = 16;

std::unique_ptr<faiss::Index> make(
        const std::string& description,
        faiss::MetricType metric = faiss::METRIC_L2) {
    INFO(description);
    std::unique_ptr<faiss::Index> index(
            faiss_flash::index_factory(d, description.c_str(), metric));
    REQUIRE(index);
    return index;
}

/// The options of the index inside all wrappers.
const FlashOptions& options_of(const faiss::Index& index) {
    if (auto* map = dynamic_cast<const faiss::IndexIDMap*>(&index)) {
        return options_of(*map->index);
    }
    if (auto* pre = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
        return options_of(*pre->index);
    }
    if (auto* refine = dynamic_cast<const faiss::IndexRefine*>(&index)) {
        return options_of(*refine->base_index);
    }
    return dynamic_cast<const FlashOptions&>(index);
}

void check_equal(const FlashOptions& a, const FlashOptions& b) {
    CHECK(a.trainer == b.trainer);
    CHECK(a.engine == b.engine);
    CHECK(a.policy.rule == b.policy.rule);
    CHECK(a.policy.max_lists == b.policy.max_lists);
    CHECK(a.policy.tau == b.policy.tau);
    CHECK(a.policy.epsilon == b.policy.epsilon);
    CHECK(a.policy.lambda == b.policy.lambda);
    CHECK(a.policy.strict == b.policy.strict);
    CHECK(a.policy.candidates == b.policy.candidates);
    CHECK(a.gmm.warm_start_niter == b.gmm.warm_start_niter);
    CHECK(a.gmm.em_niter == b.gmm.em_niter);
    CHECK(a.gmm.em_tolerance == b.gmm.em_tolerance);
    CHECK(a.gmm.covariance == b.gmm.covariance);
    CHECK(a.gmm.variance_floor == b.gmm.variance_floor);
    CHECK(a.gmm.min_weight == b.gmm.min_weight);
}

/// The description is refused at character `at`, counted from 1.
void check_refused(
        const std::string& description,
        size_t at,
        const std::vector<std::string>& parts = {}) {
    std::vector<std::string> all = parts;
    all.push_back("at character " + std::to_string(at) + " of");
    all.push_back(
            "\n  " + description + "\n  " + std::string(at - 1, ' ') + "^");
    check_throws([&] { make(description); }, all);
}

} // namespace

TEST_CASE("the classes that descriptions give", "[sanitize]") {
    const auto metric = GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
    const auto flat = make("IVF32,Flat", metric);
    CHECK(type_of(flat) == typeid(IndexIVFFlatFlash));
    CHECK(flat->metric_type == metric);
    check_equal(options_of(*flat), FlashOptions());
    const auto pq = make("IVF32(kmeans,nearest),PQ4x6np", metric);
    CHECK(type_of(pq) == typeid(IndexIVFPQFlash));
    auto& ivfpq = dynamic_cast<IndexIVFPQFlash&>(*pq);
    CHECK(ivfpq.pq.M == 4);
    CHECK(ivfpq.pq.nbits == 6);
    CHECK_FALSE(ivfpq.do_polysemous_training);
    CHECK(ivfpq.own_fields);
    CHECK(ivfpq.own_invlists);
    CHECK(ivfpq.trainer == Trainer::kmeans);
    CHECK(ivfpq.policy.rule == AssignmentRule::nearest);
    CHECK(ivfpq.cp.spherical == (metric == faiss::METRIC_INNER_PRODUCT));
    const auto sq = make("IVF32(gmm,air),SQ8", metric);
    CHECK(type_of(sq) == typeid(IndexIVFScalarQuantizerFlash));

    // quantizers of FAISS's, with and without options
    for (const char* text :
         {"IVF32_HNSW16,Flat",
          "IVF32_HNSW16(soar),Flat",
          "IVF32(HNSW16,Flat),Flat",
          "IVF32(HNSW16,Flat)(soar),Flat"}) {
        const auto index = make(text, metric);
        CHECK(type_of(index) == typeid(IndexIVFFlatFlash));
        auto& ivf = dynamic_cast<IndexIVFFlatFlash&>(*index);
        CHECK(dynamic_cast<faiss::IndexHNSWFlat*>(ivf.quantizer));
        CHECK(ivf.quantizer_trains_alone == 2);
    }

    // inside wrappers
    const auto pre = make("OPQ4_8,IVF32(top=2),PQ4", metric);
    auto* transform = dynamic_cast<faiss::IndexPreTransform*>(pre.get());
    REQUIRE(transform);
    CHECK(type_of(transform->index) == typeid(IndexIVFPQFlash));
    CHECK(transform->index->d == 8);
    const auto refine = make("PCA8,IVF32(top=2),SQ8,Refine(SQfp16)", metric);
    CHECK(dynamic_cast<faiss::IndexRefine*>(refine.get()));
    CHECK(options_of(*refine).policy.max_lists == 2);
    const auto map = make("IDMap,IVF32,Flat", metric);
    CHECK(type_of(map) == typeid(faiss::IndexIDMap));
    options_of(*map);
    CHECK(type_of(make("IVF32,Flat,IDMap2", metric)) ==
          typeid(faiss::IndexIDMap2));

    // any other IVF index: ours around FAISS's if options are given
    const auto fast = make("IVF32(kmeans,closure),PQ4x4fs");
    auto* unique = dynamic_cast<IndexUnique*>(fast.get());
    REQUIRE(unique);
    CHECK(unique->own_fields);
    CHECK(unique->trainer == Trainer::kmeans);
    CHECK(unique->policy.rule == AssignmentRule::closure);
    for (const char* text :
         {"IVF32,PQ4x4fs",
          "Flat",
          "HNSW16",
          "PQ4",
          "IMI2x4,Flat",
          "PCA8,Flat"}) {
        const auto ours = make(text);
        const std::unique_ptr<faiss::Index> theirs(
                faiss::index_factory(d, text));
        const faiss::Index &a = *ours, &b = *theirs;
        CHECK(typeid(a) == typeid(b));
    }
    // a metric that our classes do not have
    CHECK(type_of(make("IVF32,Flat", faiss::METRIC_L1)) ==
          typeid(faiss::IndexIVFFlat));
}

TEST_CASE("every trainer, policy and parameter can be described") {
    auto options = [](const std::string& text) {
        return options_of(*make("IVF64(" + text + "),Flat"));
    };
    auto with = [](const AssignmentPolicy& policy) {
        FlashOptions expected;
        expected.policy = policy;
        return expected;
    };
    check_equal(options("gmm"), FlashOptions());
    check_equal(options("air"), FlashOptions());
    check_equal(options("gmm,nearest"), with(AssignmentPolicy::nearest()));
    check_equal(options("top=3"), with(AssignmentPolicy::top_m(3)));
    check_equal(options("top_m"), with(AssignmentPolicy::top_m(2)));
    check_equal(
            options(" top_m , max_lists = 5 "),
            with(AssignmentPolicy::top_m(5)));
    check_equal(options("tau=1/K"), with(AssignmentPolicy::responsibility()));
    check_equal(
            options("tau=0.25,max_lists=4"),
            with(AssignmentPolicy::responsibility(0.25, 4)));
    check_equal(
            options("max_lists=4,tau=1.6e1/K"),
            with(AssignmentPolicy::responsibility(0.25, 4)));
    check_equal(
            options("responsibility=0.01"),
            with(AssignmentPolicy::responsibility(0.01)));
    check_equal(options("closure=0.2"), with(AssignmentPolicy::closure(0.2)));
    check_equal(
            options("epsilon=0.3,max_lists=3"),
            with(AssignmentPolicy::closure(0.3, 3)));
    check_equal(options("air=0.5"), with(AssignmentPolicy::air(0.5)));
    check_equal(
            options("strict,lambda=0.5"),
            with(AssignmentPolicy::air(0.5, true)));
    FlashOptions soar = with(AssignmentPolicy::soar(2));
    soar.policy.candidates = 5;
    soar.engine = "reference";
    check_equal(options("candidates=5,soar=2,engine=reference"), soar);
    FlashOptions gmm = with(AssignmentPolicy::nearest());
    gmm.gmm.warm_start_niter = 3;
    gmm.gmm.em_niter = 7;
    gmm.gmm.em_tolerance = 1e-7;
    gmm.gmm.covariance = Covariance::tied_spherical;
    gmm.gmm.variance_floor = 0.125;
    gmm.gmm.min_weight = 0.5;
    check_equal(
            options("warm_start_niter=3,em_niter=7,em_tolerance=1e-7,nearest,"
                    "covariance=tied_spherical,variance_floor=0.125,"
                    "min_weight=0.5,gmm"),
            gmm);
}

TEST_CASE("a description that is wrong is pointed at") {
    check_refused("IVF64(gmn,air),Flat", 7, {"trainer", "policy", "lambda"});
    check_refused("IVF64(gmm,kmeans),Flat", 11, {"second trainer"});
    check_refused("IVF64(air,soar),Flat", 11, {"second policy"});
    check_refused("IVF64(),Flat", 7, {"expected a trainer"});
    check_refused("IVF64(gmm,),Flat", 11, {"expected a trainer"});
    check_refused("OPQ4,IVF64(top=x),Flat", 16, {"whole number"});
    check_refused("IVF64(top=),Flat", 11, {"whole number"});
    check_refused("IVF64(top=2.5),Flat", 11, {"whole number"});
    check_refused("IVF64(tau=2/L),Flat", 11, {"1/K"});
    check_refused("IVF64(max_lists),Flat", 7, {"top_m"});
    check_refused("IVF64(air,tau=0.1),Flat", 11, {"of responsibility"});
    check_refused("IVF64(kmeans,em_niter=3),Flat", 14, {"gmm"});
    check_refused("IVF64(gmm,covariance=full),Flat", 22, {"tied_diag"});
    check_refused("IVF64(gmm,covariance),Flat", 11, {"tied_diag"});
    check_refused("IVF64(kmeans,covariance=diag),Flat", 14, {"gmm"});
    check_refused("IVF64(nearest=3),Flat", 15, {"no value"});
    check_refused("IVF64(strict=1),Flat", 14, {"no value"});
    check_refused("IVF64(top=65),Flat", 7, {"max_lists = 65", "nlist = 64"});
    check_refused("IVF64(em_niter=-1),Flat", 7, {"em_niter"});
    check_refused("IVF64(engine=abacus),Flat", 14, {"reference"});
    check_refused("IVF64(air;soar),Flat", 7);
    check_refused("IVF64(air,Flat", 15, {"','"});
    check_refused("IVF64(air(2)),Flat", 10, {"','"});
    check_refused("IVF64(air)Flat", 11, {"','"});
    check_refused("IVF64(air)", 11, {"codes"});
    check_refused("IVF64(air)(HNSW16),Flat", 11, {"','"});
    check_refused("IVF64(IVF8(air),Flat),Flat", 12, {"outermost"});
    check_refused("IVF64(HNSW16,Flat", 6, {"not closed"});
    check_refused("IVF64,Flat)", 11, {"closes nothing"});
    check_refused("HNSW16(air),Flat", 8, {"IVF part"});
    check_refused("Flat,Refine(air)", 13, {"IVF part"});
    check_refused("IVF64(air),Flat,Refine(IVF64(air),Flat)", 30, {"outermost"});
    check_refused("IVF64(air),PQ8+8", 7, {"nearest"});
    check_refused("IVF0(air),Flat", 4, {"above 0"});
    check_refused("IVF64(air),PQ0", 14, {"above 0"});
    check_refused("IVF4,PQ0", 8, {"above 0"});
    check_refused("IVF12345678901(air),Flat", 4, {"9 digits"});
    check_refused("OPQ4,IVF64,PQ4,IVF12345678901,Flat", 19, {"9 digits"});
    // what FAISS does not know, before and behind the options
    check_refused("XPQ4,IVF64(air),Flat", 1);
    check_refused("IVF64(air),FlatX", 12);
    check_refused("OPQ4,IVF64(air),PQ3", 17);
    check_refused("OPQ4_8,IVF64(HNSW16)(air),PQ4,Refine(PQ3)", 31);
    check_refused("IVF64_HNSW(Flat),Flat", 1);
    check_refused("IDMap,IVF64(air),Flat,IDmap", 23);
    check_refused("", 1);
    check_refused(",", 1);
    check_throws([] { make(std::string(2000, 'F')); }, {"1000 characters"});
    check_throws([] { make("IVF\n64(air),Flat"); }, {"IVF?64"});
    check_throws(
            [] { make("IVF64(air),Flat", faiss::METRIC_L1); }, {"METRIC_L2"});
    check_throws(
            [] { delete faiss_flash::index_factory(0, "Flat"); }, {"d = 0"});
    check_throws(
            [] { delete faiss_flash::index_factory(4, nullptr); }, {"null"});
}

TEST_CASE("any text gives an index or a FaissException") {
    const std::vector<std::string> words = {
            "IVF8", "IVF",  "(",   ")",      ",",       "gmm",    "air",
            "=",    "tau",  "1/K", "2",      "Flat",    "PQ4",    "SQ8",
            "OPQ4", "PCA8", "top", "IDMap",  "RFlat",   "Refine", "HNSW4",
            "0",    "x4fs", " ",   "strict", "nearest", "_"};
    const unsigned seed = 20260101;
    INFO("seed " << seed);
    std::mt19937 rng(seed);
    size_t made = 0;
    for (int round = 0; round < 300; round++) {
        std::string text = rng() % 2 ? "IVF8(gmm,top=2),Flat" : "";
        for (int edit = rng() % 5; edit >= 0; edit--) {
            const size_t at = rng() % (text.size() + 1);
            if (rng() % 3 == 0) {
                text.erase(at, rng() % 4);
            } else {
                text.insert(at, words[rng() % words.size()]);
            }
        }
        INFO(text);
        try {
            delete faiss_flash::index_factory(d, text.c_str());
            made++;
        } catch (const faiss::FaissException& e) {
            CHECK_THAT(
                    std::string(e.what()),
                    Catch::Matchers::ContainsSubstring("at character"));
        }
    }
    CHECK(made > 5);
}

TEST_CASE("index_description is the inverse of index_factory") {
    const std::vector<std::string> same = {
            "IVF64(gmm,air),Flat",
            "IVF64(kmeans,nearest),SQ8",
            "IVF64_HNSW16(gmm,top_m,max_lists=3),SQfp16",
            "OPQ4_8,IVF64(gmm,responsibility,tau=0.1),PQ4x8",
            "PCA8,L2norm,IVF64(gmm,closure,epsilon=0.3,max_lists=4),PQ4x6np",
            "PCAWR8,IVF64(gmm,soar,lambda=0.1,candidates=7),SQ4,RFlat",
            "IDMap2,RR8,Pad12,IVF64(gmm,air,lambda=0.3,strict,engine=cpu),SQ6",
            "IVF64(gmm,air,em_niter=3,em_tolerance=1e-07),Flat",
            "IVF64(gmm,air,covariance=tied_diag,variance_floor=0.5),Flat",
            "ITQ,IVF64(kmeans,air,candidates=3),Flat"};
    for (const std::string& text : same) {
        CHECK(index_description(*make(text)) == text);
    }
    // other spellings say the same
    CHECK(index_description(*make("IVF64,PQ4")) == "IVF64(gmm,air),PQ4x8");
    CHECK(index_description(*make("IVF64(tau=1/K),PQ4,IDMap")) ==
          "IDMap,IVF64(gmm,responsibility),PQ4x8");

    std::mt19937 rng(7);
    std::uniform_real_distribution<double> positive(0.001, 0.9);
    for (int round = 0; round < 60; round++) {
        auto index = make("IVF64,Flat");
        auto& options = dynamic_cast<FlashOptions&>(*index);
        options.trainer = rng() % 2 ? Trainer::gmm : Trainer::kmeans;
        const AssignmentPolicy policies[] = {
                AssignmentPolicy::nearest(),
                AssignmentPolicy::top_m(1 + rng() % 5),
                AssignmentPolicy::responsibility(positive(rng), 1 + rng() % 3),
                AssignmentPolicy::closure(positive(rng), 1 + rng() % 9),
                AssignmentPolicy::air(positive(rng), rng() % 2),
                AssignmentPolicy::soar(positive(rng))};
        options.policy = policies[rng() % 6];
        if (options.trainer == Trainer::gmm) {
            options.gmm.min_weight = positive(rng);
        }
        const std::string text = index_description(*index);
        INFO(text);
        check_equal(options_of(*make(text)), options);
    }
    for (const char* other :
         {"Flat", "IVF64(IVF8,Flat),Flat", "IVF64,PQ4x4fs", "PCA8,Flat"}) {
        check_throws(
                [&] { index_description(*make(other)); },
                {"index_description"});
    }
    faiss::IndexIDMap outside(make("IVF64,Flat,RFlat").release());
    outside.own_fields = true;
    check_throws([&] { index_description(outside); }, {"IndexRefine"});
    const auto both = make("IVF64,Flat,IDMap,RFlat");
    check_throws([&] { index_description(*both); }, {"IndexIDMap"});
}

TEST_CASE("described indexes train, add and search without duplicates") {
    const std::vector<float> x = clustered(600, d, 1), xq = clustered(10, d, 2);
    for (const std::string& text :
         {std::string("IVF16(gmm,tau=1/K,em_niter=3),Flat"),
          std::string("PCA8,IVF16(kmeans,top=2),PQ4x4,RFlat"),
          std::string("PCA8,IVF16(gmm,air),SQ8"),
          std::string("IVF16_HNSW8(kmeans,closure=0.5),Flat"),
          std::string("PCA8,IVF16(kmeans,top=2),PQ4x4fs"),
          std::string("IVF16(IVF4,Flat)(kmeans,soar),SQ8")}) {
        INFO(text);
        const auto index = make(text);
        index->train(600, x.data());
        index->add(600, x.data());
        CHECK(index->ntotal == 600);
        const Results results = search(*index, xq, 20);
        CHECK(count_duplicates(results.labels, 20) == 0);
        CHECK(std::count(results.labels.begin(), results.labels.end(), -1) <
              100);
    }
}
