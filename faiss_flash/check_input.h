#pragma once

#include <cstddef>

namespace faiss_flash {

/// Throws a FaissException that names the first row and column of x, (n, d),
/// holding a NaN or an infinity. O(n·d), parallel over rows.
/// @param what  starts the message
void check_finite(const char* what, size_t n, size_t d, const float* x);

} // namespace faiss_flash
