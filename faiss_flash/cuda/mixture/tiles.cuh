#pragma once

// Rows of soft passes, tile by tile, and what becomes of them: exact
// responsibilities, partial sums, statistics. README.md draws it.

#include <faiss_flash/cuda/mixture/masks.cuh>
#include <faiss_flash/cuda/mixture/settle.cuh>

namespace faiss_flash {

/// Rows that share a thread block; they are neighbours in an order that puts
/// rows of the same best component together, so most of their components
/// are the same.
constexpr int tile_rows = 128;
/// A row with more components is wide.
constexpr int row_entries = 64;
/// Components of all rows of a tile at most (see most_pairs_of); rows that
/// come too late are wide.
constexpr int tile_pairs = 2048;

/// How rows are cut; tiles never cross a block of rows.
struct TileShape {
    int64_t n = 0, block_rows = 0;

    __host__ __device__ int64_t blocks() const {
        return (n + block_rows - 1) / block_rows;
    }
    __host__ __device__ int64_t tiles_per_block() const {
        return block_rows / tile_rows;
    }
    __host__ __device__ int64_t tiles() const {
        return (n + tile_rows - 1) / tile_rows;
    }
};

/// What a tile has of one component: Σ r w x over its rows that have it, or
/// where to find them.
struct alignas(16) TileItem {
    static constexpr uint32_t vector = 0xffffffffu;
    /// the vector; the row's first float, in fours where d is a multiple of
    /// 4; or the first of the links, in items
    uint32_t at;
    uint32_t rows;  ///< 0: nothing, 1: `at` is the row, or `vector`, or links
    float count;    ///< Σ r w
    float energy;   ///< Σ r w ‖x − μ‖²; diagonal: nothing of use
};

/// A row of an item without a vector; two of them in the place of an item.
struct TileLink {
    uint32_t row; ///< as in TileItem
    float share; ///< r w
};

/** Partial sums of the tiles of some rows; all on the device.
 *
 * Which tile has which component is a matrix of bits: an item is found by
 * counting the bits below its own. Items, and vectors, lie where there was
 * room when a tile asked for it, which changes from run to run; what is
 * summed in which order does not. A tile that finds no room for its vectors
 * leaves the rows, and who adds it up goes through them in the same order
 * with the same operations.
 */
struct TileItems {
    uint32_t* bits = nullptr;  ///< (words, tiles), see MaskBit
    uint32_t* first = nullptr; ///< item of the word's first bit; the same
    TileItem* items = nullptr; ///< tile_pairs per tile at most
    float* vectors = nullptr;  ///< (most_vectors, stride), see write_several
    uint32_t most_vectors = 0;
    int stride = 0; ///< d rounded up to a multiple of 4; diagonal: twice
    unsigned long long* used = nullptr; ///< items, then vectors; (2)
};

/// Rows with too many components for a tile; all on the device.
struct WideRows {
    /// of a block of rows; where there are more, its wide rows are dense
    int most = 0;
    /// What becomes of a row: nothing; the components of its mask are looked
    /// at; or all are, because those that it does not list could matter. Wide
    /// rows have the lowest bit.
    enum Mark : uint8_t { no = 0, listed = 1, everything = 3 };
    uint8_t* marks = nullptr;  ///< (n)
    uint32_t* rows = nullptr;  ///< (n) of each block, ascending, from its
                               ///< first row on
    uint2* counts = nullptr;   ///< (blocks) x: rows
    float2* shares = nullptr;  ///< r w, r w ‖x − μ‖²; (blocks, most, k)
};

/// Rows of a pass on their way through the tiles; n·d and k·d below 2³².
struct TileInput {
    MixtureRowsInput rows;
    MaskView masks;
    const RowLimit* limits = nullptr; ///< (n) of the masks
    const uint32_t* order = nullptr; ///< (n) see launch_order_rows
};

/** The order of rows within each block: by component, and then by number.
 * @param components  (n)
 * @param order       (n) row numbers past the block's first row
 */
cudaError_t launch_order_rows(
        const TileShape& shape,
        int k,
        const uint32_t* components,
        uint32_t* order,
        void* scratch,
        cudaStream_t stream);
size_t order_scratch_bytes(const TileShape& shape, int k);

/** Exact densities and responsibilities of all rows but wide ones, which are
 * marked: ‖x − μ‖² in difference form in single precision, log densities in
 * double; and their partial sums.
 */
cudaError_t launch_tiles(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const TileItems& items,
        const WideRows& wide,
        cudaStream_t stream);

/// Marks to lists of rows.
cudaError_t launch_list_wide(
        const MixtureRowsInput& in,
        const WideRows& wide,
        cudaStream_t stream);

/// The same as launch_tiles() for the wide rows of blocks that have at most
/// wide.most; all of a row's components are in `shares`.
cudaError_t launch_wide_rows(
        const TileInput& in,
        const MixtureRowsOutput& out,
        const WideRows& wide,
        cudaStream_t stream);

/** Statistics of the rows of launch_tiles() and launch_wide_rows(): tiles in
 * order, then wide rows in order, in double precision; blocks of rows in
 * order onto `out`.
 */
cudaError_t launch_combine_tiles(
        const MixtureRowsInput& in,
        const TileItems& items,
        const WideRows& wide,
        const DeviceStatistics& out,
        cudaStream_t stream);

} // namespace faiss_flash
