#pragma once

// Vectors of any stored type, read as floats.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include <faiss_flash/trainer/vector_type.h>

namespace faiss_flash {

__device__ inline float to_float(float value) {
    return value;
}
__device__ inline float to_float(__half value) {
    return __half2float(value);
}
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ inline float to_float(uint8_t value) {
    return value;
}

/// Call fn with a pointer of the type that the vectors have.
template <class Fn>
void with_type(const DeviceVectors& vectors, Fn&& fn) {
    switch (vectors.type) {
        case VectorType::float32:
            return fn(static_cast<const float*>(vectors.data));
        case VectorType::float16:
            return fn(static_cast<const __half*>(vectors.data));
        case VectorType::bfloat16:
            return fn(static_cast<const __nv_bfloat16*>(vectors.data));
        case VectorType::uint8:
            return fn(static_cast<const uint8_t*>(vectors.data));
    }
}

} // namespace faiss_flash
