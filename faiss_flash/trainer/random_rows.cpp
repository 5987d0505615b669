#include <faiss_flash/trainer/random_rows.h>

#include <limits>
#include <numeric>
#include <utility>

#include <faiss/utils/random.h>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

std::vector<int64_t> first_of_permutation(
        size_t n,
        size_t count,
        int64_t seed) {
    FAISS_THROW_IF_NOT_FMT(
            n <= (size_t)std::numeric_limits<int>::max(),
            "n = %zd training vectors; at most %d can be sampled from",
            n,
            std::numeric_limits<int>::max());
    std::vector<int> rows(n);
    std::iota(rows.begin(), rows.end(), 0);
    faiss::RandomGenerator random(seed);
    // the last number of all has nothing left to change places with
    for (size_t i = 0; i < count && n - i > 1; i++) {
        std::swap(rows[i], rows[i + random.rand_int(int(n - i))]);
    }
    return {rows.begin(), rows.begin() + count};
}

} // namespace faiss_flash
