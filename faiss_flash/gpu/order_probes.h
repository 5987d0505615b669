#pragma once

#include <cuda_runtime.h>

#include <faiss_flash/gpu/lists_view.h>

namespace faiss_flash {

/** Where every query's candidates lie, from what the coarse quantizer found.
 *
 * A list number outside [0, nlist), and a list that no longer fits into the
 * query's `stride` candidates, is as if it were empty. All pointers on the
 * device.
 *
 * @param found   (n, nprobe), list numbers
 * @param lists   (n, nprobe), out: the same or −1
 * @param places  (n, nprobe), out
 * @param counts  (n), out
 */
cudaError_t place_probes(
        const ListsView& view,
        int64_t n,
        int nprobe,
        int64_t stride,
        const int64_t* found,
        int* lists,
        uint32_t* places,
        uint32_t* counts,
        cudaStream_t stream);

/** Pairs (query, probe) by list, in no particular order within one, and how
 * many tiles of queries_per_tile queries each list has: a counting sort.
 *
 * @param loads   (nlist), scratch
 * @param ranks   (n·nprobe), scratch
 * @param begins  (nlist + 1), out: TilesView::begins
 * @param order   (n·nprobe), out: TilesView::order
 */
cudaError_t order_probes(
        const ListsView& view,
        const ProbesView& probes,
        int queries_per_tile,
        int* loads,
        int* ranks,
        uint64_t* begins,
        int* order,
        cudaStream_t stream);

} // namespace faiss_flash
