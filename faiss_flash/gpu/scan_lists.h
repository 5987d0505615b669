#pragma once

#include <cuda_runtime.h>

#include <faiss_flash/gpu/lists_view.h>

namespace faiss_flash {

/** Scores of all candidates: for L2 ‖x − v‖², for inner products −x·v, so
 * that the smallest is the best; in fp32, in the order of the components
 * within a query and vector, whatever shares the tile. So the same bytes every
 * run, and the same for all copies of a vector that decode to the same.
 *
 * With tiles: blocks of queries_per_tile (8 or 32) queries times tile_entries
 * entries of a list, each code decoded once per tile. Without (nullptr): one
 * query times tile_entries entries, for few queries per list.
 *
 * 2·d operations per candidate. All pointers on the device.
 *
 * @param x       (probes.n, d)
 * @param scores  (probes.n, probes.stride)
 */
cudaError_t scan_lists(
        const ListsView& lists,
        const ProbesView& probes,
        const TilesView* tiles,
        const float* x,
        bool inner_product,
        float* scores,
        cudaStream_t stream);

} // namespace faiss_flash
