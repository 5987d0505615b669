#pragma once

#include <cstdint>

namespace faiss_flash {

/** How a code becomes a vector (FAISS's formats; numbers of few bits follow
 * each other from the lowest bit of the first byte on).
 *
 *   fp32, fp16, bf16   the components
 *   sq8, sq6, sq4      offset + scale · number, per component
 *   pq8, pq            the codebook's entry per subspace; 8 bits, 1 to 16
 */
enum class CodeKind { fp32, fp16, bf16, sq8, sq6, sq4, pq8, pq };

/// Posting lists in device memory; passed to kernels by value.
struct ListsView {
    CodeKind kind = CodeKind::fp32;
    int d = 0;
    int code_size = 0; ///< bytes
    /// whether vectors are read four components at a time: d % 4 = 0, and not
    /// `pq`
    bool quads = false;
    int nlist = 0;
    int64_t entries = 0;
    int64_t longest = 0;              ///< entries of the longest list
    const int64_t* begins = nullptr;  ///< (nlist + 1), first entry of each
    const uint8_t* codes = nullptr;   ///< (entries, code_size)
    const int64_t* ids = nullptr;     ///< (entries)
    const float* centroids = nullptr; ///< (nlist, d); none: no residuals
    const float* scale = nullptr;     ///< (d), sq
    const float* offset = nullptr;    ///< (d), sq
    const float* codebook = nullptr;  ///< (d / pq_dsub, 2^pq_bits, pq_dsub)
    int pq_bits = 0;
    int pq_dsub = 1;
};

/** What a block of queries probes. A query's candidates are the entries of
 * its lists one after the other: entry i of the list of probe p is candidate
 * place(query, p) + i.
 */
struct ProbesView {
    int64_t n = 0; ///< queries
    int nprobe = 0;
    int64_t stride = 0;               ///< most candidates, a multiple of 4
    const int* lists = nullptr;       ///< (n, nprobe), −1: none
    const uint32_t* places = nullptr; ///< (n, nprobe)
    const uint32_t* counts = nullptr; ///< (n), candidates
};

/// A tile has up to this many entries of a list.
constexpr int tile_entries = 128;

/// Tiles that a list is cut into, all but the last of the same height, a
/// multiple of 32.
#ifdef __CUDACC__
__host__ __device__
#endif
        inline int
        entry_tiles(int64_t list_size) {
    return (int)((list_size + tile_entries - 1) / tile_entries);
}

/// Pairs (query, probe) ordered by list, and the tiles they make.
struct TilesView {
    int queries_per_tile = 0;
    const int* order = nullptr; ///< pairs query·nprobe + probe
    /// (nlist + 1): pairs of the lists before this one in the low 32 bits,
    /// tiles in the high ones
    const uint64_t* begins = nullptr;
};

} // namespace faiss_flash
