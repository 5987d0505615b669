#include <faiss_flash/ivf/wrapped_index.h>

#include <faiss/IndexIDMap.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexRefine.h>
#include <faiss/IndexRowwiseMinMax.h>

namespace faiss_flash {

faiss::Index** wrapped_index(faiss::Index& index) {
    if (auto* transform = dynamic_cast<faiss::IndexPreTransform*>(&index)) {
        return &transform->index;
    }
    if (auto* id_map = dynamic_cast<faiss::IndexIDMap*>(&index)) {
        return &id_map->index;
    }
    if (auto* refine = dynamic_cast<faiss::IndexRefine*>(&index)) {
        return &refine->base_index;
    }
    if (auto* minmax = dynamic_cast<faiss::IndexRowwiseMinMaxBase*>(&index)) {
        return &minmax->index;
    }
    return nullptr;
}

const faiss::Index& innermost_index(const faiss::Index& index) {
    faiss::Index* at = const_cast<faiss::Index*>(&index); // only read
    while (faiss::Index** wrapped = wrapped_index(*at)) {
        FAISS_THROW_IF_NOT_MSG(*wrapped, "a wrapper holds no index");
        at = *wrapped;
    }
    return *at;
}

} // namespace faiss_flash
