// Searches on the GPU against distances in double precision, computed from
// what the CPU index decodes: every kind of code, both metrics, every way the
// work is cut. Cases that need a device say so where there is none.

#include <algorithm>
#include <limits>
#include <map>

#include <faiss/gpu/StandardGpuResources.h>

#include <faiss_flash/gpu/GpuIndexUnique.h>
#include <faiss_flash/gpu/gpu_cloner.h>
#include <tests/index_util.h>
#include <tests/no_device.h>

using namespace test;
using faiss_flash::AssignmentRule;
using faiss_flash::GpuIndexUnique;
using SQ = faiss::ScalarQuantizer;

namespace {

/// All that an index decodes to.
struct Decoded {
    struct Entry {
        idx_t id;
        std::vector<float> x;
    };
    std::vector<std::vector<Entry>> lists;
    bool inner_product;

    explicit Decoded(const faiss::IndexIVF& index)
            : lists(index.nlist),
              inner_product(index.metric_type == faiss::METRIC_INNER_PRODUCT) {
        for (size_t list = 0; list < index.nlist; list++) {
            faiss::InvertedLists::ScopedIds ids(index.invlists, list);
            for (size_t i = 0; i < index.invlists->list_size(list); i++) {
                Entry entry{ids[i], std::vector<float>(index.d)};
                index.reconstruct_from_offset(list, i, entry.x.data());
                lists[list].push_back(std::move(entry));
            }
        }
    }

    /// The best distance of every id in these lists.
    std::map<idx_t, double> best(
            const float* x,
            const idx_t* probed,
            size_t nprobe) const {
        std::map<idx_t, double> found;
        for (size_t p = 0; p < nprobe; p++) {
            if (probed[p] < 0) {
                continue;
            }
            for (const Entry& entry : lists[probed[p]]) {
                double sum = 0;
                for (size_t j = 0; j < entry.x.size(); j++) {
                    const double v = entry.x[j];
                    sum += inner_product ? x[j] * v : (x[j] - v) * (x[j] - v);
                }
                const auto at = found.emplace(entry.id, sum).first;
                at->second = inner_product ? std::max(at->second, sum)
                                           : std::min(at->second, sum);
            }
        }
        return found;
    }
};

/// Lists of every query from the CPU's quantizer, (n, nprobe).
std::vector<idx_t> lists_of(
        const faiss::IndexIVF& index,
        const std::vector<float>& x,
        size_t nprobe) {
    const size_t n = x.size() / index.d;
    std::vector<float> dist(n * nprobe);
    std::vector<idx_t> lists(n * nprobe);
    index.quantizer->search(n, x.data(), nprobe, dist.data(), lists.data());
    return lists;
}

Results search_lists(
        const faiss::Index& gpu,
        const std::vector<float>& x,
        idx_t k,
        const std::vector<idx_t>& lists) {
    const size_t n = x.size() / gpu.d;
    faiss::SearchParametersIVF params;
    params.nprobe = lists.size() / n;
    Results found{std::vector<float>(n * k, -7), std::vector<idx_t>(n * k, -7)};
    dynamic_cast<const GpuIndexUnique&>(gpu).search_preassigned(
            n,
            x.data(),
            k,
            lists.data(),
            nullptr,
            found.distances.data(),
            found.labels.data(),
            false,
            &params);
    return found;
}

/// As many as there are, each id once, best first, and the right distances.
void check_exact(
        const Decoded& decoded,
        const std::vector<float>& x,
        idx_t k,
        const std::vector<idx_t>& lists,
        const Results& found) {
    const size_t n = found.labels.size() / k;
    const size_t d = x.size() / n, nprobe = lists.size() / n;
    const bool ip = decoded.inner_product;
    size_t wrong_labels = 0, wrong_order = 0, wrong_fill = 0;
    double worst = 0;
    for (size_t q = 0; q < n; q++) {
        auto best = decoded.best(&x[q * d], &lists[q * nprobe], nprobe);
        std::vector<double> sorted;
        double scale = 1e-3;
        for (const auto& entry : best) {
            sorted.push_back(entry.second);
            scale = std::max(scale, std::fabs(entry.second));
        }
        std::sort(sorted.begin(), sorted.end());
        if (ip) {
            std::reverse(sorted.begin(), sorted.end());
        }
        for (idx_t j = 0; j < k; j++) {
            const float dist = found.distances[q * k + j];
            const idx_t id = found.labels[q * k + j];
            if ((size_t)j >= sorted.size()) {
                const float fill = std::numeric_limits<float>::max();
                wrong_fill += id != -1 || dist != (ip ? -fill : fill);
                continue;
            }
            const auto at = best.find(id);
            if (at == best.end()) { // not there, or found before
                wrong_labels++;
                continue;
            }
            worst = std::max(worst, std::fabs(dist - at->second) / scale);
            worst = std::max(worst, std::fabs(dist - sorted[j]) / scale);
            best.erase(at);
            if (j > 0) {
                const float before = found.distances[q * k + j - 1];
                wrong_order += ip ? dist > before : dist < before;
                wrong_order +=
                        dist == before && id < found.labels[q * k + j - 1];
            }
        }
    }
    CHECK(wrong_labels == 0);
    CHECK(wrong_fill == 0);
    // of equal distances the lower id comes first, as long as one round of
    // the selection is enough: the calls below see to that or say otherwise
    CHECK(wrong_order == 0);
    CHECK(worst < 2e-6);
}

struct Case {
    std::string name;
    size_t d;
    std::function<faiss::IndexIVF*(faiss::Index*, size_t)> make;
};

template <class Index, class... Args>
Case make_case(const std::string& name, size_t d, Args... args) {
    return {name + ", d = " + std::to_string(d),
            d,
            [=](faiss::Index* quantizer, size_t nlist) -> faiss::IndexIVF* {
                auto* index = new Index(quantizer, d, nlist, args...);
                index->policy = AssignmentPolicy::top_m(3);
                return index;
            }};
}

using faiss_flash::IndexIVFFlatFlash;
using faiss_flash::IndexIVFPQFlash;
using faiss_flash::IndexIVFScalarQuantizerFlash;

std::vector<Case> all_cases(faiss::MetricType metric) {
    std::vector<Case> cases;
    for (const size_t d : {1, 3, 32, 50, 100, 128}) {
        cases.push_back(make_case<IndexIVFFlatFlash>("flat", d, metric));
    }
    auto pq = [&](size_t d, size_t m, size_t bits) {
        cases.push_back(make_case<IndexIVFPQFlash>(
                "pq" + std::to_string(m) + "x" + std::to_string(bits),
                d,
                m,
                bits,
                metric));
    };
    pq(32, 4, 8);
    pq(50, 10, 8); // five components each
    pq(128, 32, 8);
    pq(32, 16, 8); // two components each
    pq(60, 10, 8);
    pq(60, 20, 8);
    pq(12, 12, 8);
    pq(32, 8, 4);
    pq(32, 8, 5);
    pq(32, 4, 9);
    for (const auto& [name, type] :
         std::vector<std::pair<const char*, SQ::QuantizerType>>{
                 {"sq8", SQ::QT_8bit},
                 {"sq8 uniform", SQ::QT_8bit_uniform},
                 {"sq8 direct", SQ::QT_8bit_direct},
                 {"sq8 direct signed", SQ::QT_8bit_direct_signed},
                 {"sq6", SQ::QT_6bit},
                 {"sq4", SQ::QT_4bit},
                 {"sq4 uniform", SQ::QT_4bit_uniform},
                 {"fp16", SQ::QT_fp16},
                 {"bf16", SQ::QT_bf16}}) {
        for (const size_t d : {32, 50}) {
            cases.push_back(make_case<IndexIVFScalarQuantizerFlash>(
                    name, d, type, metric, true));
        }
    }
    cases.push_back(make_case<IndexIVFScalarQuantizerFlash>(
            "sq8 without residuals", 33, SQ::QT_8bit, metric, false));
    return cases;
}

std::unique_ptr<faiss::IndexIVF> filled(
        const Case& what,
        faiss::MetricType metric,
        size_t nlist,
        size_t n) {
    auto* quantizer = new faiss::IndexFlat(what.d, metric);
    std::unique_ptr<faiss::IndexIVF> index(what.make(quantizer, nlist));
    index->own_fields = true;
    train_briefly(*index);
    index->cp.niter = 4;
    const std::vector<float> x = clustered(n, what.d, 5);
    index->train(n, x.data());
    index->add(n, x.data());
    return index;
}

std::unique_ptr<faiss::Index> to_gpu(
        faiss::gpu::GpuResourcesProvider& resources,
        const faiss::Index& index) {
    return std::unique_ptr<faiss::Index>(
            faiss_flash::index_cpu_to_gpu(&resources, 0, &index));
}

} // namespace

TEST_CASE("gpu search: every kind of code, exactly", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        for (const Case& what : all_cases(metric)) {
            // short lists, and some that are long enough for tables of PQ
            for (const size_t nlist : {30, 5}) {
                const auto index = filled(what, metric, nlist, 1200);
                const Decoded decoded(*index);
                const auto gpu = to_gpu(resources, *index);
                // pairs by themselves, tiles of 8, tiles of 32
                for (const size_t nq : {1, 20, 120}) {
                    const std::vector<float> x = clustered(nq, what.d, 7);
                    const auto lists = lists_of(*index, x, nlist == 5 ? 3 : 7);
                    INFO(what.name << ", metric " << (int)metric << ", "
                                   << nlist << " lists, " << nq << " queries");
                    check_exact(
                            decoded,
                            x,
                            10,
                            lists,
                            search_lists(*gpu, x, 10, lists));
                }
            }
        }
    }
}

TEST_CASE("gpu search: every k and nprobe", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    const size_t nlist = 30, n = 4000;
    for (const auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        for (const Case& what :
             {make_case<IndexIVFFlatFlash>("flat", 24, metric),
              make_case<IndexIVFPQFlash>("pq", 24, 6, 8, metric)}) {
            const auto index = filled(what, metric, nlist, n);
            const Decoded decoded(*index);
            const auto gpu = to_gpu(resources, *index);
            for (const size_t nq : {1, 33}) {
                const std::vector<float> x = clustered(nq, what.d, 7);
                for (const size_t nprobe : {1, 2, 8, 30}) {
                    const auto lists = lists_of(*index, x, nprobe);
                    for (const idx_t k : {1, 10, 100, 1000, 2048}) {
                        INFO(what.name << ", metric " << (int)metric << ", "
                                       << nq << " queries, nprobe " << nprobe
                                       << ", k = " << k);
                        const Results found = search_lists(*gpu, x, k, lists);
                        check_exact(decoded, x, k, lists, found);
                        // with the GPU's quantizer
                        faiss::SearchParametersIVF params;
                        params.nprobe = nprobe;
                        const Results all = search(*gpu, x, k, &params);
                        CHECK(all.labels == found.labels);
                        CHECK(all.distances == found.distances);
                    }
                }
            }
        }
    }
}

TEST_CASE("gpu search: the same bytes however queries are cut", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources, small;
    small.setTempMemory(1 << 20);
    for (const Case& what :
         {make_case<IndexIVFFlatFlash>("flat", 50, faiss::METRIC_L2),
          make_case<IndexIVFScalarQuantizerFlash>(
                  "sq8", 32, SQ::QT_8bit, faiss::METRIC_L2, true)}) {
        const auto index = filled(what, faiss::METRIC_L2, 30, 4000);
        const auto gpu = to_gpu(resources, *index);
        const auto in_blocks = to_gpu(small, *index);
        const size_t nq = 300, nprobe = 9;
        const idx_t k = 20;
        const std::vector<float> x = clustered(nq, what.d, 7);
        const auto lists = lists_of(*index, x, nprobe);
        const Results found = search_lists(*gpu, x, k, lists);
        for (int run = 0; run < 5; run++) {
            const Results again = search_lists(*gpu, x, k, lists);
            CHECK(again.labels == found.labels);
            CHECK(again.distances == found.distances);
        }
        // so many that 32 MiB do not hold their candidates
        std::vector<float> many_x;
        std::vector<idx_t> many_lists;
        for (int copy = 0; copy < 12; copy++) {
            many_x.insert(many_x.end(), x.begin(), x.end());
            many_lists.insert(many_lists.end(), lists.begin(), lists.end());
        }
        const Results blocks = search_lists(*in_blocks, many_x, k, many_lists);
        size_t different = 0;
        for (size_t i = 0; i < blocks.labels.size(); i++) {
            const size_t at = i % found.labels.size();
            different += blocks.labels[i] != found.labels[at];
            different += blocks.distances[i] != found.distances[at];
        }
        CHECK(different == 0);
        for (const size_t step : {1, 13}) {
            Results parts;
            for (size_t q = 0; q < nq; q += step) {
                const size_t last = std::min(nq, q + step);
                const Results part = search_lists(
                        *gpu,
                        {&x[q * what.d], x.data() + last * what.d},
                        k,
                        {&lists[q * nprobe], lists.data() + last * nprobe});
                parts.labels.insert(
                        parts.labels.end(),
                        part.labels.begin(),
                        part.labels.end());
                parts.distances.insert(
                        parts.distances.end(),
                        part.distances.begin(),
                        part.distances.end());
            }
            CHECK(parts.labels == found.labels);
            CHECK(parts.distances == found.distances);
        }
    }
}

TEST_CASE("gpu search: many entries of one id, many equal vectors", "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    const size_t d = 8, nlist = 5, n = 6000;
    auto* quantizer = new faiss::IndexFlatL2(d);
    IndexIVFFlatFlash index(quantizer, d, nlist);
    index.own_fields = true;
    index.policy = AssignmentPolicy::top_m(2);
    train_briefly(index);
    std::vector<float> x = clustered(n, d, 5);
    index.train(n, x.data());
    // the first 4000 are one and the same vector; ids: 1500 vectors under 3
    // of them, the others' own
    for (size_t i = d; i < 4000 * d; i++) {
        x[i] = x[i % d];
    }
    std::vector<idx_t> ids(n);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (idx_t(1) << 40) + (i < 1500 ? i % 3 : i);
    }
    index.add_with_ids(n, x.data(), ids.data());
    const Decoded decoded(index);
    const auto gpu = to_gpu(resources, index);
    std::vector<float> queries = clustered(20, d, 7);
    std::copy(x.begin(), x.begin() + d, queries.begin());
    for (const size_t nprobe : {1, 2, 5}) {
        const auto lists = lists_of(index, queries, nprobe);
        for (const idx_t k : {1, 3, 64}) {
            INFO("nprobe " << nprobe << ", k = " << k);
            const Results found = search_lists(*gpu, queries, k, lists);
            CHECK(count_duplicates(found.labels, k) == 0);
            // equal distances take several rounds here: ids ascend in each
            for (size_t q = 0; q < 20; q++) {
                const auto best = decoded.best(
                        &queries[q * d], &lists[q * nprobe], nprobe);
                std::vector<double> sorted;
                for (const auto& entry : best) {
                    sorted.push_back(entry.second);
                }
                std::sort(sorted.begin(), sorted.end());
                size_t wrong = 0;
                for (idx_t j = 0; j < k; j++) {
                    const auto at = best.find(found.labels[q * k + j]);
                    wrong += (size_t)j < sorted.size() &&
                            (at == best.end() ||
                             !about(at->second, sorted[j], 1e-4) ||
                             !about(found.distances[q * k + j],
                                    sorted[j],
                                    1e-4));
                }
                CHECK(wrong == 0);
            }
        }
    }
}

TEST_CASE(
        "gpu search: empty lists, no lists, and numbers that are none",
        "[gpu]") {
    if (no_device()) {
        return;
    }
    faiss::gpu::StandardGpuResources resources;
    const Case what =
            make_case<IndexIVFFlatFlash>("flat", 16, faiss::METRIC_L2);
    const auto index = filled(what, faiss::METRIC_L2, 40, 50);
    const Decoded decoded(*index);
    const auto gpu = to_gpu(resources, *index);
    std::vector<float> x = clustered(30, 16, 7);
    auto lists = lists_of(*index, x, 40);
    check_exact(decoded, x, 60, lists, search_lists(*gpu, x, 60, lists));
    for (size_t i = 0; i < lists.size(); i += 3) {
        lists[i] = -1;
    }
    check_exact(decoded, x, 10, lists, search_lists(*gpu, x, 10, lists));
    std::fill(lists.begin(), lists.end(), -1);
    check_exact(decoded, x, 10, lists, search_lists(*gpu, x, 10, lists));
    // a list several times
    std::fill(lists.begin(), lists.end(), 3);
    check_exact(decoded, x, 10, lists, search_lists(*gpu, x, 10, lists));

    x[0] = std::numeric_limits<float>::quiet_NaN();
    x[16] = std::numeric_limits<float>::infinity();
    lists = lists_of(*index, clustered(30, 16, 7), 40);
    const Results found = search_lists(*gpu, x, 2, lists);
    for (int i = 0; i < 4; i++) {
        CHECK(found.labels[i] == -1);
        CHECK(found.distances[i] == std::numeric_limits<float>::max());
    }
    CHECK(found.labels[4] >= 0);
    search(*gpu, x, 2); // whatever the quantizer makes of it

    IndexIVFFlatFlash empty(index->quantizer, 16, 40);
    const auto empty_gpu = to_gpu(resources, empty);
    const Results none = search(*empty_gpu, clustered(3, 16, 1), 4);
    CHECK(none.labels == std::vector<idx_t>(12, -1));
}
