#pragma once

#include <cuda_runtime.h>

#include <faiss_flash/gpu/lists_view.h>

namespace faiss_flash {

/** Scores of all candidates: for L2 ‖x − v‖², for inner products −x·v, so
 * that the smallest is the best; in fp32, in the order of the components
 * within a query and vector, whatever shares the tile. So the same bytes every
 * run and (but for tables) in every batch, and the same for all copies of a
 * vector that decode to the same.
 *
 * With tiles: blocks of queries_per_tile (8 or 32) queries times tile_entries
 * entries of a list, each code decoded once per tile. Without (nullptr): one
 * query times tile_entries entries, for few queries per list; if
 * scans_by_tables(), by scan_tables().
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

/// Whether tables pay for pairs of query and list: PQ codes of 8 bits in lists
/// that are long compared with a table.
bool scans_by_tables(const ListsView& lists);

/** The same without tiles for PQ codes of 8 bits: a table of every pair of
 * query and list, d·256 operations, then one look-up per subspace and
 * candidate. The sums are grouped by subspace, so they may differ from those
 * of tiles in the last bits.
 */
cudaError_t scan_tables(
        const ListsView& lists,
        const ProbesView& probes,
        const float* x,
        bool inner_product,
        float* scores,
        cudaStream_t stream);

} // namespace faiss_flash
