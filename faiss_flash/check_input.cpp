#include <faiss_flash/check_input.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

namespace {

/// Zero times a finite number is zero and times anything else is NaN, so
/// one branch-free sum answers for a whole range.
bool all_finite(size_t n, const float* x) {
    constexpr size_t lanes = 16;
    float sums[lanes] = {};
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (size_t lane = 0; lane < lanes; lane++) {
            sums[lane] += 0.0f * x[i + lane];
        }
    }
    for (; i < n; i++) {
        sums[0] += 0.0f * x[i];
    }
    return std::none_of(sums, sums + lanes, [](float sum) { return sum != 0; });
}

} // namespace

void check_finite(const char* what, size_t n, size_t d, const float* x) {
    constexpr size_t block = 1 << 16;
    const size_t total = n * d;
    const int64_t nblock = (total + block - 1) / block;
    int64_t bad_block = nblock;
#pragma omp parallel for reduction(min : bad_block) if (nblock > 1)
    for (int64_t b = 0; b < nblock; b++) {
        const size_t begin = b * block;
        if (!all_finite(std::min(block, total - begin), x + begin)) {
            bad_block = std::min(bad_block, b);
        }
    }
    for (size_t i = bad_block * block; i < total; i++) {
        FAISS_THROW_IF_NOT_FMT(
                std::isfinite(x[i]),
                "%s: input contains NaN's or Inf's: x[%zd][%zd] = %g should "
                "be finite",
                what,
                i / d,
                i % d,
                x[i]);
    }
}

} // namespace faiss_flash
