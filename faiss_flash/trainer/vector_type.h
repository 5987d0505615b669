#pragma once

#include <cstddef>

namespace faiss_flash {

/// How the coordinates of vectors on a device are stored.
enum class VectorType { float32, float16, bfloat16, uint8 };

inline size_t size_of(VectorType type) {
    return type == VectorType::float32 ? 4 : type == VectorType::uint8 ? 1 : 2;
}

/// (n, d) coordinates on a device, row-major; nowhere if data is nullptr.
struct DeviceVectors {
    const void* data = nullptr;
    VectorType type = VectorType::float32;

    /// The same, starting `elements` coordinates further.
    DeviceVectors plus(size_t elements) const {
        return {static_cast<const char*>(data) + elements * size_of(type),
                type};
    }
};

} // namespace faiss_flash
