#pragma once

// Vectors in device memory, of every type.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <faiss_flash/cuda/device.h>
#include <faiss_flash/trainer/vector_type.h>
#include <tests/core_util.h>

namespace test {

using faiss_flash::DeviceArray;
using faiss_flash::VectorType;

const VectorType all_vector_types[] = {
        VectorType::float32,
        VectorType::float16,
        VectorType::bfloat16,
        VectorType::uint8};

/// Rounded to whole numbers from 0 to 255, which every type holds exactly.
inline Rows whole(Rows rows) {
    for (float& v : rows.x) {
        v = std::clamp(std::round(v), 0.0f, 255.0f);
    }
    return rows;
}

/// The values as `type`, on the device.
inline DeviceArray<uint8_t> on_device(const Rows& rows, VectorType type) {
    const size_t size = size_of(type);
    std::vector<uint8_t> bytes(rows.x.size() * size);
    for (size_t i = 0; i < rows.x.size(); i++) {
        uint8_t* to = bytes.data() + i * size;
        const float value = rows.x[i];
        const __half half = __float2half(value);
        const __nv_bfloat16 bfloat = __float2bfloat16(value);
        switch (type) {
            case VectorType::float32:
                memcpy(to, &value, size);
                break;
            case VectorType::float16:
                memcpy(to, &half, size);
                break;
            case VectorType::bfloat16:
                memcpy(to, &bfloat, size);
                break;
            case VectorType::uint8:
                *to = (uint8_t)value;
                break;
        }
    }
    DeviceArray<uint8_t> device(bytes.size(), nullptr);
    FAISS_FLASH_CUDA_CHECK(cudaMemcpy(
            device.get(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
    return device;
}

} // namespace test
