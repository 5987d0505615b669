#include <faiss_flash/cuda/tensor_map.h>

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <faiss_flash/cuda/device.h>

namespace faiss_flash {

namespace {

/// Looked up at run time: the library needs no driver to link or to load.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    FAISS_FLASH_CUDA_CHECK(cudaGetDriverEntryPointByVersion(
            "cuTensorMapEncodeTiled",
            &function,
            12000,
            cudaEnableDefault,
            &found));
    FAISS_THROW_IF_NOT_FMT(
            found == cudaDriverEntryPointSuccess && function,
            "the CUDA driver has no cuTensorMapEncodeTiled (result %d)",
            (int)found);
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

} // namespace

CUtensorMap tensor_map(
        const void* data,
        int64_t rows,
        int columns,
        int box_rows) {
    static const PFN_cuTensorMapEncodeTiled_v12000 encode = encode_function();
    const cuuint64_t sizes[2] = {(cuuint64_t)columns, (cuuint64_t)rows};
    const cuuint64_t strides[1] = {(cuuint64_t)columns * 2};
    const cuuint32_t box[2] = {64, (cuuint32_t)box_rows};
    const cuuint32_t steps[2] = {1, 1};
    CUtensorMap map;
    const CUresult result =
            encode(&map,
                   CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                   2,
                   const_cast<void*>(data),
                   sizes,
                   strides,
                   box,
                   steps,
                   CU_TENSOR_MAP_INTERLEAVE_NONE,
                   CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    FAISS_THROW_IF_NOT_FMT(
            result == CUDA_SUCCESS,
            "cuTensorMapEncodeTiled failed with %d for %zd × %d halves",
            (int)result,
            (size_t)rows,
            columns);
    return map;
}

} // namespace faiss_flash
