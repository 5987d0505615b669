#include <faiss_flash/flash_index_io.h>

#include <cinttypes>
#include <cmath>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include <faiss/IndexRefine.h>
#include <faiss/index_io.h>
#include <nlohmann/json.hpp>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/io/check_contents.h>
#include <faiss_flash/io/sealed_file.h>
#include <faiss_flash/ivf/list_mixture.h>
#include <faiss_flash/ivf/wrapped_index.h>

namespace faiss_flash {

namespace {

using nlohmann::json;

/*************************************************************
 * To and from JSON
 *************************************************************/

json to_json(const GMMParameters& gmm) {
    return {{"warm_start_niter", gmm.warm_start_niter},
            {"em_niter", gmm.em_niter},
            {"em_tolerance", gmm.em_tolerance},
            {"covariance", to_string(gmm.covariance)},
            {"variance_floor", gmm.variance_floor},
            {"min_weight", gmm.min_weight}};
}

void from_json(const json& j, GMMParameters& gmm) {
    j.at("warm_start_niter").get_to(gmm.warm_start_niter);
    j.at("em_niter").get_to(gmm.em_niter);
    j.at("em_tolerance").get_to(gmm.em_tolerance);
    gmm.covariance = covariance_by_name(j.at("covariance").get<std::string>());
    j.at("variance_floor").get_to(gmm.variance_floor);
    j.at("min_weight").get_to(gmm.min_weight);
}

json to_json(const AssignmentPolicy& policy) {
    return {{"rule", to_string(policy.rule)},
            {"max_lists", policy.max_lists},
            {"tau", policy.tau},
            {"epsilon", policy.epsilon},
            {"lambda", policy.lambda},
            {"strict", policy.strict},
            {"candidates", policy.candidates}};
}

void from_json(const json& j, AssignmentPolicy& policy) {
    policy.rule = assignment_rule(j.at("rule").get<std::string>());
    j.at("max_lists").get_to(policy.max_lists);
    j.at("tau").get_to(policy.tau);
    j.at("epsilon").get_to(policy.epsilon);
    j.at("lambda").get_to(policy.lambda);
    j.at("strict").get_to(policy.strict);
    j.at("candidates").get_to(policy.candidates);
}

json to_json(const faiss::Index& quantizer) {
    auto* mixture = dynamic_cast<const MixtureQuantizer*>(&quantizer);
    if (!mixture) {
        return nullptr;
    }
    return {{"nlist", mixture->nlist},
            {"gmm", to_json(mixture->gmm)},
            {"engine", mixture->engine},
            {"variances", mixture->variances},
            {"mixing_weights", mixture->mixing_weights}};
}

template <class Base>
json to_json(const char* class_name, const IVFFlash<Base>& index) {
    return {{"class", class_name},
            {"ntotal", (int64_t)index.ntotal},
            {"entries", index.ncopies()},
            {"has_copies", index.has_copies},
            {"trainer", to_string(index.trainer)},
            {"gmm", to_json(index.gmm)},
            {"policy", to_json(index.policy)},
            {"engine", index.engine},
            {"variances", index.variances},
            {"mixing_weights", index.mixing_weights},
            {"mixture_quantizer", to_json(*index.quantizer)}};
}

/// Numbers for each of the k lists, or none.
ListMixture list_mixture(const json& j, size_t k, size_t d) {
    ListMixture mixture;
    j.at("variances").get_to(mixture.variances);
    j.at("mixing_weights").get_to(mixture.mixing_weights);
    const size_t variances = mixture.variances.size();
    const size_t weights = mixture.mixing_weights.size();
    FAISS_THROW_IF_NOT_FMT(
            (variances == 0 || is_variance_count(variances, k, d)) &&
                    (weights == 0 || weights == k),
            "%zd variances and %zd mixing_weights for %zd lists in %zd "
            "dimensions",
            variances,
            weights,
            k,
            d);
    for (float value : mixture.variances) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(value) && value > 0, "variances holds %g", value);
    }
    for (float value : mixture.mixing_weights) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(value) && value >= 0,
                "mixing_weights holds %g",
                value);
    }
    return mixture;
}

/// The mixture quantizer that FAISS wrote and read as a flat index.
std::unique_ptr<faiss::Index> restore_quantizer(
        const json& j,
        const faiss::Index& read) {
    auto* flat = dynamic_cast<const faiss::IndexFlat*>(&read);
    FAISS_THROW_IF_NOT_MSG(flat, "its quantizer is not a flat index");
    auto mixture = std::make_unique<MixtureQuantizer>(
            flat->d, j.at("nlist").get<size_t>(), flat->metric_type);
    from_json(j.at("gmm"), mixture->gmm);
    j.at("engine").get_to(mixture->engine);
    std::vector<float> means((size_t)flat->ntotal * flat->d);
    flat->reconstruct_n(0, flat->ntotal, means.data());
    mixture->add(flat->ntotal, means.data());
    ListMixture known = list_mixture(j, flat->ntotal, flat->d);
    if (!known.variances.empty()) {
        mixture->set_mixture(
                std::move(known.variances), std::move(known.mixing_weights));
    }
    return mixture;
}

/*************************************************************
 * The three classes
 *************************************************************/

template <class Flash>
bool describe(const faiss::Index* index, const char* name, json& payload) {
    auto* flash = dynamic_cast<const Flash*>(index);
    if (!flash) {
        return false;
    }
    payload = to_json(name, *flash);
    return true;
}

/// The stock index and the payload put together again.
template <class Base, class Flash>
std::unique_ptr<faiss::Index> assemble(faiss::Index& read, const json& j) {
    auto* stock = dynamic_cast<Base*>(&read);
    FAISS_THROW_IF_NOT_MSG(stock, "its FAISS part is of another class");
    auto index = std::make_unique<Flash>(*stock);
    const auto ntotal = j.at("ntotal").get<int64_t>();
    const auto entries = j.at("entries").get<size_t>();
    FAISS_THROW_IF_NOT_FMT(
            index->ntotal == ntotal && index->ncopies() == entries,
            "its FAISS part holds %" PRId64
            " vectors in %zd entries, its trailer says %" PRId64 " in %zd",
            (int64_t)index->ntotal,
            index->ncopies(),
            ntotal,
            entries);
    j.at("has_copies").get_to(index->has_copies);
    FAISS_THROW_IF_NOT_MSG(
            index->has_copies || entries <= (size_t)ntotal,
            "its trailer knows of no copies, but there are some");
    index->trainer = trainer_by_name(j.at("trainer").get<std::string>());
    from_json(j.at("gmm"), index->gmm);
    index->gmm.check();
    from_json(j.at("policy"), index->policy);
    j.at("engine").get_to(index->engine);
    ListMixture known = list_mixture(j, index->nlist, index->d);
    index->variances = std::move(known.variances);
    index->mixing_weights = std::move(known.mixing_weights);
    const json& mixture = j.at("mixture_quantizer");
    if (!mixture.is_null()) {
        auto quantizer = restore_quantizer(mixture, *index->quantizer);
        delete index->quantizer;
        index->quantizer = quantizer.release();
    }
    return index;
}

std::unique_ptr<faiss::Index> assemble(faiss::Index& read, const json& j) {
    const auto name = j.at("class").get<std::string>();
    if (name == "IndexIVFFlatFlash") {
        return assemble<faiss::IndexIVFFlat, IndexIVFFlatFlash>(read, j);
    }
    if (name == "IndexIVFPQFlash") {
        return assemble<faiss::IndexIVFPQ, IndexIVFPQFlash>(read, j);
    }
    if (name == "IndexIVFScalarQuantizerFlash") {
        return assemble<
                faiss::IndexIVFScalarQuantizer,
                IndexIVFScalarQuantizerFlash>(read, j);
    }
    FAISS_THROW_FMT("its class '%s' is unknown", name.c_str());
}

/// Run fn; whatever it throws becomes a FaissException naming the file.
template <class Fn>
void naming_file(const char* action, const char* path, Fn&& fn) {
    const std::string prefix =
            std::string("cannot ") + action + " " + path + ": ";
    try {
        fn();
    } catch (const faiss::FaissException& e) {
        if (e.msg.find(path) != std::string::npos) {
            throw;
        }
        throw faiss::FaissException(prefix + e.msg.c_str());
    } catch (const std::bad_alloc&) {
        throw faiss::FaissException(prefix + "out of memory");
    } catch (const std::exception& e) {
        throw faiss::FaissException(prefix + e.what());
    }
}

} // namespace

namespace {

bool is_ours(const faiss::Index* index) {
    return dynamic_cast<const FlashOptions*>(index) != nullptr;
}

/// FAISS's part would hold a stock index in such a place.
void check_no_other(const faiss::Index& index) {
    if (auto* ivf = dynamic_cast<const faiss::IndexIVF*>(&index)) {
        FAISS_THROW_IF_NOT_MSG(
                !is_ours(ivf->quantizer),
                "the quantizer is an index of ours, which files cannot hold "
                "there");
    }
    if (auto* refine = dynamic_cast<const faiss::IndexRefine*>(&index)) {
        FAISS_THROW_IF_NOT_MSG(
                refine->refine_index &&
                        !is_ours(&innermost_index(*refine->refine_index)),
                "the refine_index is an index of ours, which files cannot "
                "hold there");
    }
    faiss::Index* at = const_cast<faiss::Index*>(&index); // only read
    if (faiss::Index** wrapped = wrapped_index(*at)) {
        check_no_other(**wrapped);
    }
}

/// The table that FAISS computes when it reads an index itself.
void precompute_table(faiss::Index& index, uint64_t file_bytes) {
    auto* ivf = dynamic_cast<faiss::IndexIVFPQ*>(&index);
    if (ivf && ivf->is_trained && ivf->by_residual) {
        const double bytes =
                (double)ivf->nlist * ivf->pq.M * ivf->pq.ksub * sizeof(float);
        if (bytes <= 64. * file_bytes) {
            ivf->use_precomputed_table = 0;
            ivf->precompute_table();
        }
    }
}

} // namespace

void write_index(const faiss::Index* index, const char* path) {
    FAISS_THROW_IF_NOT_MSG(path, "write_index: path is a null pointer");
    naming_file("write", path, [&] {
        FAISS_THROW_IF_NOT_MSG(index, "index is a null pointer");
        const faiss::Index* inner = &innermost_index(*index);
        json payload;
        FAISS_THROW_IF_NOT_MSG(
                describe<IndexIVFFlatFlash>(
                        inner, "IndexIVFFlatFlash", payload) ||
                        describe<IndexIVFPQFlash>(
                                inner, "IndexIVFPQFlash", payload) ||
                        describe<IndexIVFScalarQuantizerFlash>(
                                inner, "IndexIVFScalarQuantizerFlash", payload),
                "the index is neither IndexIVFFlatFlash nor IndexIVFPQFlash "
                "nor IndexIVFScalarQuantizerFlash, nor one of FAISS's "
                "wrappers around them");
        check_no_other(*index);
        check_contents(*index);
        SealedWriter writer(path);
        faiss::write_index(index, &writer);
        writer.check_faiss_part();
        writer.commit(payload.dump());
    });
}

faiss::Index* read_index(const char* path) {
    FAISS_THROW_IF_NOT_MSG(path, "read_index: path is a null pointer");
    std::unique_ptr<faiss::Index> index;
    naming_file("read", path, [&] {
        SealedReader reader(path);
        const json payload = json::parse(reader.payload());
        reader.check_faiss_part();
        index.reset(faiss::read_index(
                &reader, faiss::IO_FLAG_SKIP_PRECOMPUTE_TABLE));
        FAISS_THROW_IF_NOT_MSG(
                reader.at_end(), "FAISS's part has bytes that FAISS left");
        check_contents(*index);

        // the stock index in its wrappers gives way to ours
        faiss::Index** place = wrapped_index(*index);
        if (!place) {
            index = assemble(*index, payload);
            precompute_table(*index, reader.faiss_bytes());
            return;
        }
        while (faiss::Index** inner = wrapped_index(**place)) {
            place = inner;
        }
        faiss::Index* ours = assemble(**place, payload).release();
        delete *place;
        *place = ours;
        precompute_table(*ours, reader.faiss_bytes());
    });
    return index.release();
}

} // namespace faiss_flash
