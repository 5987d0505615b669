#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace faiss_flash {

/// Of one value or more; the mean of the middle two where there is no middle.
inline double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t middle = values.size() / 2;
    return values.size() % 2 ? values[middle]
                             : (values[middle - 1] + values[middle]) / 2;
}

} // namespace faiss_flash
