#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faiss_flash {

/** The first `count` numbers of faiss::rand_perm(n, seed), the permutation
 * that FAISS picks training vectors by. Step i of it settles number i, so
 * the other steps are not needed: O(count) random numbers, 4 bytes per
 * vector.
 *
 * Throws if n is more than an int holds, as FAISS's permutation does not go
 * further.
 */
std::vector<int64_t> first_of_permutation(size_t n, size_t count, int64_t seed);

} // namespace faiss_flash
