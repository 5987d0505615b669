#include <typeinfo>

#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/VectorTransform.h>

#include <faiss_flash/ivf/factory_options.h>
#include <faiss_flash/ivf/index_factory.h>

namespace faiss_flash {

namespace {

using std::to_string;

template <class T>
[[noreturn]] void cannot_describe(const char* what, const T& object) {
    FAISS_THROW_FMT(
            "index_description: no description for this %s (%s)",
            what,
            typeid(object).name());
}

std::string describe(const faiss::VectorTransform& vt) {
    if (auto* pca = dynamic_cast<const faiss::PCAMatrix*>(&vt)) {
        if (pca->eigen_power == 0 || pca->eigen_power == -0.5f) {
            return std::string("PCA") + (pca->eigen_power == 0 ? "" : "W") +
                    (pca->random_rotation ? "R" : "") + to_string(vt.d_out);
        }
    } else if (auto* opq = dynamic_cast<const faiss::OPQMatrix*>(&vt)) {
        return "OPQ" + to_string(opq->M) + "_" + to_string(vt.d_out);
    } else if (dynamic_cast<const faiss::RandomRotationMatrix*>(&vt)) {
        return "RR" + to_string(vt.d_out);
    } else if (auto* itq = dynamic_cast<const faiss::ITQTransform*>(&vt)) {
        return itq->do_pca ? "ITQ" + to_string(vt.d_out) : "ITQ";
    } else if (
            auto* norm =
                    dynamic_cast<const faiss::NormalizationTransform*>(&vt)) {
        if (norm->norm == 2) {
            return "L2norm";
        }
    } else if (dynamic_cast<const faiss::RemapDimensionsTransform*>(&vt)) {
        if (vt.d_out >= vt.d_in) {
            return "Pad" + to_string(vt.d_out);
        }
    }
    cannot_describe("transform", vt);
}

std::string describe_code(const faiss::ScalarQuantizer& sq) {
    switch (sq.qtype) {
        case faiss::ScalarQuantizer::QT_8bit:
            return "SQ8";
        case faiss::ScalarQuantizer::QT_4bit:
            return "SQ4";
        case faiss::ScalarQuantizer::QT_6bit:
            return "SQ6";
        case faiss::ScalarQuantizer::QT_fp16:
            return "SQfp16";
        default:
            FAISS_THROW_FMT(
                    "index_description: no description for the scalar "
                    "quantizer type %d",
                    (int)sq.qtype);
    }
}

std::string describe_code(const faiss::IndexIVFPQ& ivf) {
    return "PQ" + to_string(ivf.pq.M) + "x" + to_string(ivf.pq.nbits) +
            (ivf.do_polysemous_training ? "" : "np");
}

std::string describe_ivf(
        const faiss::IndexIVF& ivf,
        const FlashOptions& options,
        const std::string& code) {
    FAISS_THROW_IF_NOT_MSG(ivf.quantizer, "the index has no quantizer");
    std::string text = "IVF" + to_string(ivf.nlist);
    if (auto* hnsw = dynamic_cast<const faiss::IndexHNSWFlat*>(ivf.quantizer)) {
        text += "_HNSW" + to_string(hnsw->hnsw.nb_neighbors(1));
    } else if (!dynamic_cast<const faiss::IndexFlat*>(ivf.quantizer)) {
        cannot_describe("quantizer", *ivf.quantizer);
    }
    return text + "(" + faiss_flash::to_string(options) + ")," + code;
}

std::string describe_inside(const faiss::Index& index) {
    if (auto* map = dynamic_cast<const faiss::IndexIDMap*>(&index)) {
        return (dynamic_cast<const faiss::IndexIDMap2*>(map) ? "IDMap2,"
                                                             : "IDMap,") +
                describe_inside(*map->index);
    }
    if (auto* pre = dynamic_cast<const faiss::IndexPreTransform*>(&index)) {
        std::string text;
        for (const faiss::VectorTransform* vt : pre->chain) {
            text += describe(*vt) + ",";
        }
        return text + describe_inside(*pre->index);
    }
    if (auto* flat = dynamic_cast<const IndexIVFFlatFlash*>(&index)) {
        return describe_ivf(*flat, *flat, "Flat");
    }
    if (auto* pq = dynamic_cast<const IndexIVFPQFlash*>(&index)) {
        return describe_ivf(*pq, *pq, describe_code(*pq));
    }
    if (auto* sq = dynamic_cast<const IndexIVFScalarQuantizerFlash*>(&index)) {
        return describe_ivf(*sq, *sq, describe_code(sq->sq));
    }
    // among them an IndexRefine, which descriptions put outermost
    cannot_describe("index", index);
}

} // namespace

std::string index_description(const faiss::Index& index) {
    auto* refine = dynamic_cast<const faiss::IndexRefine*>(&index);
    if (!refine) {
        return describe_inside(index);
    }
    FAISS_THROW_IF_NOT_MSG(refine->refine_index, "there is no refine_index");
    if (!dynamic_cast<const faiss::IndexFlat*>(refine->refine_index)) {
        cannot_describe("refine_index", *refine->refine_index);
    }
    const std::string base = describe_inside(*refine->base_index);
    FAISS_THROW_IF_NOT_MSG(
            base.find("IDMap") == std::string::npos,
            "index_description: FAISS's versions read IndexIDMap with "
            "IndexRefine differently");
    return base + ",RFlat";
}

} // namespace faiss_flash
