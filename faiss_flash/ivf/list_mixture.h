#pragma once

#include <vector>

namespace faiss_flash {

/// What makes an index's centroids a mixture, or nothing.
struct ListMixture {
    std::vector<float> variances;      ///< (nlist), or (nlist, d) if diagonal
    std::vector<float> mixing_weights; ///< (nlist)
};

} // namespace faiss_flash
