// Training, adding and searching through IVF indexes that have no class of
// their own: what comes back is what the index finds, each id once.

#include <tests/index_util.h>

#include <map>
#include <numeric>

#include <faiss/IndexIDMap.h>
#include <faiss/index_factory.h>

#include <faiss_flash/ivf/IndexUnique.h>

using namespace faiss_flash;
using namespace test;

namespace {

constexpr size_t d = 8, nlist = 16, nb = 700, nq = 20;

std::unique_ptr<faiss::IndexIVF> make_ivf(
        const std::string& code,
        faiss::MetricType metric = faiss::METRIC_L2) {
    const std::string description = "IVF" + std::to_string(nlist) + "," + code;
    auto* ivf = dynamic_cast<faiss::IndexIVF*>(
            faiss::index_factory(d, description.c_str(), metric));
    REQUIRE(ivf);
    train_briefly(*ivf);
    return std::unique_ptr<faiss::IndexIVF>(ivf);
}

/// Codes of this FAISS that have no class of ours, and one that has.
std::vector<std::string> codes() {
    std::vector<std::string> all = {
            "Flat", "PQ4x4fs", "PQ4x4fsr", "RQ2x4", "ITQ8,SH"};
#if FAISS_FLASH_FAISS_VERSION >= 11500
    for (const char* code : {"RaBitQ", "RaBitQ4", "RaBitQfs", "EDEN"}) {
        all.emplace_back(code);
    }
#endif
    return all;
}

/// Filled with two or more copies of many vectors.
std::unique_ptr<IndexUnique> make_unique_index(
        const std::string& code,
        const AssignmentPolicy& policy,
        faiss::MetricType metric = faiss::METRIC_L2) {
    auto unique =
            std::make_unique<IndexUnique>(make_ivf(code, metric).release());
    unique->own_fields = true;
    unique->policy = policy;
    unique->gmm.em_niter = 5;
    const std::vector<float> x = clustered(nb, d, 1);
    unique->train(nb, x.data());
    unique->add(nb, x.data());
    return unique;
}

/// Every id the probed lists hold, with its best distance.
std::vector<std::map<idx_t, float>> all_found(
        const faiss::IndexIVF& index,
        const std::vector<float>& xq) {
    const idx_t k = index.invlists->compute_ntotal() + 1;
    const Results found = search(index, xq, k);
    std::vector<std::map<idx_t, float>> best(xq.size() / d);
    for (size_t i = 0; i < found.labels.size(); i++) {
        if (found.labels[i] >= 0) { // best first: the first one stays
            best[i / k].emplace(found.labels[i], found.distances[i]);
        }
    }
    return best;
}

} // namespace

TEST_CASE("IndexUnique finds what its index finds, once", "[sanitize]") {
    for (const std::string& code : codes()) {
        for (const AssignmentPolicy& policy :
             {AssignmentPolicy::top_m(3),
              AssignmentPolicy::air(),
              AssignmentPolicy::responsibility(0.05, 4)}) {
            const auto unique = make_unique_index(code, policy);
            INFO(code << " " << to_string(policy.rule));
            CHECK(unique->ntotal == (idx_t)nb);
            CHECK(unique->index->ntotal == (idx_t)nb);
            CHECK(unique->index->invlists->compute_ntotal() > nb);
            const std::vector<float> xq = clustered(nq, d, 2);
            for (size_t nprobe : {1, 4, (int)nlist}) {
                unique->index->nprobe = nprobe;
                const auto best = all_found(*unique->index, xq);
                for (idx_t k : {1, 10, 60, (int)nb + 5}) {
                    INFO("nprobe " << nprobe << " k " << k);
                    const Results results = search(*unique, xq, k);
                    CHECK(count_duplicates(results.labels, k) == 0);
                    size_t wrong = 0, holes = 0;
                    for (size_t q = 0; q < nq; q++) {
                        std::vector<float> expected;
                        for (const auto& entry : best[q]) {
                            expected.push_back(entry.second);
                        }
                        std::sort(expected.begin(), expected.end());
                        const size_t n = std::min<size_t>(k, expected.size());
                        for (size_t j = 0; j < (size_t)k; j++) {
                            const idx_t id = results.labels[q * k + j];
                            const float dis = results.distances[q * k + j];
                            holes += (id >= 0) != (j < n);
                            if (j < n && id >= 0) {
                                const auto at = best[q].find(id);
                                wrong += at == best[q].end() ||
                                        !about(at->second, dis, 1e-4) ||
                                        !about(dis, expected[j], 1e-4);
                            }
                        }
                    }
                    CHECK(wrong == 0);
                    CHECK(holes == 0);
                }
            }
        }
    }
}

TEST_CASE("IndexUnique finds in a range what its index finds, once") {
    size_t supported = 0;
    for (const std::string& code : codes()) {
        INFO(code);
        const auto unique = make_unique_index(code, AssignmentPolicy::top_m(3));
        unique->index->nprobe = nlist / 2;
        const std::vector<float> xq = clustered(nq, d, 2);
        const float radius = search(*unique, xq, 20).distances[15];
        faiss::RangeSearchResult raw(nq), once(nq);
        try {
            unique->index->range_search(nq, xq.data(), radius, &raw);
        } catch (const faiss::FaissException&) {
            CHECK_THROWS_AS(
                    unique->range_search(nq, xq.data(), radius, &once),
                    faiss::FaissException);
            continue;
        }
        supported++;
        unique->range_search(nq, xq.data(), radius, &once);
        CHECK(once.lims[nq] < raw.lims[nq]);
        for (size_t q = 0; q < nq; q++) {
            std::map<idx_t, float> best, found;
            for (size_t i = raw.lims[q]; i < raw.lims[q + 1]; i++) {
                float& distance = best.emplace(raw.labels[i], raw.distances[i])
                                          .first->second;
                distance = std::min(distance, raw.distances[i]);
            }
            for (size_t i = once.lims[q]; i < once.lims[q + 1]; i++) {
                CHECK(found.emplace(once.labels[i], once.distances[i]).second);
            }
            CHECK(found == best);
        }
    }
    CHECK(supported > 0);
}

TEST_CASE("IndexUnique inside IndexIDMap") {
    IndexUnique* unique =
            make_unique_index("PQ4x4fs", AssignmentPolicy::air()).release();
    unique->reset();
    faiss::IndexIDMap map(unique);
    map.own_fields = true;
    const std::vector<float> x = clustered(nb, d, 1), xq = clustered(nq, d, 2);
    std::vector<idx_t> ids(nb);
    std::iota(ids.begin(), ids.end(), 10000);
    map.add_with_ids(nb, x.data(), ids.data());
    CHECK(map.ntotal == (idx_t)nb);
    unique->index->nprobe = nlist;
    const Results found = search(map, xq, nb);
    CHECK(count_duplicates(found.labels, nb) == 0);
    CHECK(*std::min_element(found.labels.begin(), found.labels.end()) == 10000);
}

TEST_CASE("IndexUnique over IVF-Flat is IndexIVFFlatFlash") {
    const auto metric = GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
    const auto policy = GENERATE(
            AssignmentPolicy::nearest(),
            AssignmentPolicy::top_m(2),
            AssignmentPolicy::closure(0.3, 4),
            AssignmentPolicy::responsibility(0.1, 3),
            AssignmentPolicy::soar());
    const auto trainer = GENERATE(Trainer::gmm, Trainer::kmeans);
    const auto x = clustered(nb, d, 3), xq = clustered(nq, d, 4);
    faiss::IndexFlat quantizer(d, metric), stock_quantizer(d, metric);
    IndexIVFFlatFlash flash(&quantizer, d, nlist, metric);
    faiss::IndexIVFFlat stock(&stock_quantizer, d, nlist, metric);
    train_briefly(flash);
    train_briefly(stock);
    IndexUnique unique(&stock);
    for (FlashOptions* options :
         {(FlashOptions*)&flash, (FlashOptions*)&unique}) {
        options->policy = policy;
        options->trainer = trainer;
        options->gmm.em_niter = 5;
    }
    flash.train(nb, x.data());
    unique.train(nb, x.data());
    CHECK(unique.is_trained);
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = 10 * i;
    }
    flash.add_with_ids(nb, x.data(), ids.data());
    unique.add_with_ids(nb, x.data(), ids.data());
    CHECK(unique.ntotal == (idx_t)nb);
    CHECK(ListContents(stock) == ListContents(flash));
    flash.nprobe = stock.nprobe = 5;
    for (idx_t k : {1, 7, 200, 1000}) {
        const Results a = search(flash, xq, k), b = search(unique, xq, k);
        CHECK(a.labels == b.labels);
        CHECK(a.distances == b.distances);
    }
    // search parameters are passed on
    faiss::SearchParametersIVF params;
    params.nprobe = nlist;
    faiss::IDSelectorRange some(500, 3000);
    params.sel = &some;
    const Results a = search(flash, xq, 9, &params);
    const Results b = search(unique, xq, 9, &params);
    CHECK(a.labels == b.labels);
    CHECK(a.distances == b.distances);
    // range search: the same sets, whatever the order
    const float radius = b.distances[5];
    faiss::RangeSearchResult ra(nq), rb(nq);
    flash.range_search(nq, xq.data(), radius, &ra);
    unique.range_search(nq, xq.data(), radius, &rb);
    size_t found = 0;
    for (size_t q = 0; q < nq; q++) {
        std::map<idx_t, float> sa, sb;
        for (size_t i = ra.lims[q]; i < ra.lims[q + 1]; i++) {
            sa[ra.labels[i]] = ra.distances[i];
        }
        for (size_t i = rb.lims[q]; i < rb.lims[q + 1]; i++) {
            CHECK(sb.emplace(rb.labels[i], rb.distances[i]).second);
        }
        CHECK(sa == sb);
        found += sb.size();
    }
    CHECK(found > 0);
}

TEST_CASE("IndexUnique removes vectors, not copies") {
    for (const std::string& code : codes()) {
        INFO(code);
        const auto unique = make_unique_index(code, AssignmentPolicy::top_m(2));
        faiss::IDSelectorRange some(100, 400);
        if (!can_remove_from(*unique->index->invlists)) {
            check_throws([&] { unique->remove_ids(some); }, {"block"});
            continue;
        }
        CHECK(unique->remove_ids(some) == 300);
        CHECK(unique->ntotal == (idx_t)nb - 300);
        CHECK(unique->index->ntotal == (idx_t)nb - 300);
        CHECK(unique->index->invlists->compute_ntotal() == 2 * (nb - 300));
        unique->index->nprobe = nlist;
        const std::vector<float> xq = clustered(nq, d, 2);
        for (idx_t label : search(*unique, xq, nb - 300).labels) {
            CHECK((label >= 0 && (label < 100 || label >= 400)));
        }
        CHECK(unique->remove_ids(some) == 0);
        unique->reset();
        CHECK(unique->ntotal == 0);
        CHECK(search(*unique, xq, 3).labels == std::vector<idx_t>(3 * nq, -1));
    }
}

TEST_CASE("train_quantizer gives our trainers' centroids") {
    const auto trainer = GENERATE(Trainer::gmm, Trainer::kmeans);
    const std::vector<float> x = clustered(nb, d, 1);
    FlashOptions options;
    options.trainer = trainer;
    options.gmm.em_niter = 5;
    options.gmm.covariance = GENERATE(Covariance::spherical, Covariance::diag);
    const bool diagonal =
            trainer == Trainer::gmm && is_diagonal(options.gmm.covariance);
    const auto ivf = make_ivf("PQ4x4fs");
    const ListMixture mixture = train_quantizer(*ivf, nb, x.data(), options);
    CHECK(mixture.variances.size() == nlist * (diagonal ? d : 1));
    CHECK(mixture.mixing_weights.size() == nlist);
    CHECK_FALSE(ivf->is_trained);
    ivf->train(nb, x.data());
    CHECK(ivf->is_trained);

    faiss::IndexFlatL2 quantizer(d);
    IndexIVFFlatFlash flash(&quantizer, d, nlist);
    train_briefly(flash);
    (FlashOptions&)flash = options;
    flash.train(nb, x.data());
    std::vector<float> a(nlist * d), b(nlist * d);
    ivf->quantizer->reconstruct_n(0, nlist, a.data());
    quantizer.reconstruct_n(0, nlist, b.data());
    CHECK(a == b);
    CHECK(mixture.variances == flash.variances);
    // kept when there; a mixture is estimated where the policy needs one
    options.policy = AssignmentPolicy::responsibility();
    const ListMixture again = train_quantizer(*ivf, nb, x.data(), options);
    CHECK(again.variances.size() == nlist);
    ivf->quantizer->reconstruct_n(0, nlist, b.data());
    CHECK(a == b);
}

TEST_CASE("mistakes with any IVF index are named") {
    const std::vector<float> x = clustered(nb, d, 1);
    FlashOptions options;
    auto ivf = make_ivf("Flat");
    check_throws(
            [&] { add_with_policy(*ivf, nb, x.data(), nullptr); },
            {"not trained"});
    check_throws([&] { train_quantizer(*ivf, 0, x.data()); }, {"n = 0"});
    check_throws([&] { train_quantizer(*ivf, nb, nullptr); }, {"null pointer"});
    std::vector<float> bad = x;
    bad[d * 3 + 2] = NAN;
    check_throws([&] { train_quantizer(*ivf, nb, bad.data()); }, {"x[3][2]"});
    options.policy = AssignmentPolicy::top_m(nlist + 1);
    check_throws(
            [&] { train_quantizer(*ivf, nb, x.data(), options); },
            {"max_lists"});
    CHECK(ivf->quantizer->ntotal == 0);

    train_quantizer(*ivf, nb, x.data());
    ivf->train(nb, x.data());
    check_throws(
            [&] { add_with_policy(*ivf, nb, bad.data(), nullptr); },
            {"x[3][2]"});
    // without a mixture
    options.policy = AssignmentPolicy::responsibility();
    check_throws(
            [&] { add_with_policy(*ivf, nb, x.data(), nullptr, options); },
            {"variances"});
    CHECK(ivf->ntotal == 0);
    CHECK(ivf->invlists->compute_ntotal() == 0);
    // one record per vector
    options.policy = AssignmentPolicy::top_m(2);
    ivf->make_direct_map(true);
    check_throws(
            [&] { add_with_policy(*ivf, nb, x.data(), nullptr, options); },
            {"direct map"});
    options.policy = AssignmentPolicy::nearest();
    add_with_policy(*ivf, nb, x.data(), nullptr, options);
    CHECK(ivf->ntotal == (idx_t)nb);
    options.policy = AssignmentPolicy::top_m(2);
    auto dedup = make_ivf("FlatDedup");
    dedup->train(nb, x.data());
    check_throws(
            [&] { add_with_policy(*dedup, nb, x.data(), nullptr, options); },
            {"IndexIVFFlatDedup"});
    CHECK(dedup->ntotal == 0);

    check_throws([&] { IndexUnique unique(nullptr); }, {"null pointer"});
    const auto unique = make_unique_index("Flat", AssignmentPolicy::top_m(2));
    check_throws([&] { search(*unique, std::vector<float>(d), 0); }, {"k = 0"});
    unique->index->make_direct_map(true);
    faiss::IDSelectorRange some(0, 3);
    check_throws([&] { unique->remove_ids(some); }, {"direct map"});
    std::vector<float> row(d);
    unique->reconstruct(3, row.data());
    CHECK(std::equal(row.begin(), row.end(), x.begin() + 3 * d));
}
