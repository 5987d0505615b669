#pragma once

#include <vector>

namespace faiss_flash {

/// What makes an index's centroids a mixture: one number per list, or none.
struct ListMixture {
    std::vector<float> variances;
    std::vector<float> mixing_weights;
};

} // namespace faiss_flash
