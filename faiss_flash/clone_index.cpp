#include <memory>
#include <typeinfo>

#include <faiss/IndexRefine.h>
#include <faiss/clone_index.h>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/flash_index_io.h>

namespace faiss_flash {

namespace {

template <class T, class From>
T* copy_of(const From* index) {
    auto* ours = dynamic_cast<const T*>(index);
    return ours ? new T(*ours) : nullptr;
}

/// FAISS's cloner, which calls these again for the parts of wrappers.
struct FlashCloner : faiss::Cloner {
    /// Lists and quantizer are still the original's; FAISS replaces them.
    faiss::IndexIVF* clone_IndexIVF(const faiss::IndexIVF* ivf) override {
        if (auto* flat = copy_of<IndexIVFFlatFlash>(ivf)) {
            return flat;
        }
        if (auto* pq = copy_of<IndexIVFPQFlash>(ivf)) {
            return pq;
        }
        if (auto* sq = copy_of<IndexIVFScalarQuantizerFlash>(ivf)) {
            return sq;
        }
        return faiss::Cloner::clone_IndexIVF(ivf);
    }

    faiss::Index* clone_Index(const faiss::Index* index) override {
        if (auto* mixture = copy_of<MixtureQuantizer>(index)) {
            return mixture;
        }
        // which FAISS 1.7.3 does not clone
        if (typeid(*index) == typeid(faiss::IndexRefine)) {
            return clone_refine<faiss::IndexRefine>(index);
        }
        if (typeid(*index) == typeid(faiss::IndexRefineFlat)) {
            return clone_refine<faiss::IndexRefineFlat>(index);
        }
        return faiss::Cloner::clone_Index(index);
    }

    template <class Refine>
    faiss::Index* clone_refine(const faiss::Index* index) {
        auto& from = dynamic_cast<const Refine&>(*index);
        std::unique_ptr<faiss::Index> base(clone_Index(from.base_index));
        std::unique_ptr<faiss::Index> refine(clone_Index(from.refine_index));
        auto copy = std::make_unique<Refine>(from);
        copy->base_index = base.release();
        copy->refine_index = refine.release();
        copy->own_fields = copy->own_refine_index = true;
        return copy.release();
    }
};

} // namespace

faiss::Index* clone_index(const faiss::Index* index) {
    FAISS_THROW_IF_NOT_MSG(index, "clone_index: index is a null pointer");
    FlashCloner cloner;
    return cloner.clone_Index(index);
}

} // namespace faiss_flash
