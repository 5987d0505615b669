#pragma once

#include <memory>
#include <string>

#include <datasets/row_store.h>

namespace faiss_flash {

/// Opens a .fvecs, .bvecs or .ivecs file: every row is its int32 dimension
/// and then its components.
std::shared_ptr<const RowStore> open_vecs_rows(
        const std::string& path,
        ElementType element);

/// Opens a .fbin, .u8bin, .i8bin or .ibin file: uint32 n, uint32 d, then the
/// rows. An .ibin may carry an (n, d) float32 matrix of distances after the
/// ids, as public ground truth of billion-scale sets does; it is not read.
std::shared_ptr<const RowStore> open_bin_rows(
        const std::string& path,
        ElementType element);

} // namespace faiss_flash
