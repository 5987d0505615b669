#pragma once

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// Where a wrapper (IndexPreTransform, IndexIDMap, IndexRefine,
/// IndexRowwiseMinMax) keeps the index that it wraps, of an IndexRefine the
/// one that is searched first. nullptr if `index` is no such wrapper.
faiss::Index** wrapped_index(faiss::Index& index);

/// The index inside all wrappers; `index` itself if it is no wrapper.
const faiss::Index& innermost_index(const faiss::Index& index);

} // namespace faiss_flash
