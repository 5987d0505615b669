#pragma once

#include <cuda.h>

#include <cstdint>

namespace faiss_flash {

/// Describe (rows, columns) halves at `data`, row length `columns` (a
/// multiple of 8), to be copied in boxes of box_rows × 64 with 128-byte
/// swizzle; what lies outside reads as zero.
CUtensorMap tensor_map(
        const void* data,
        int64_t rows,
        int columns,
        int box_rows);

} // namespace faiss_flash
