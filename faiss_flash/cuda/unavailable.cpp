// Compiled instead of the CUDA engine where there is no CUDA compiler.

#include <faiss_flash/cuda/device_source.h>
#include <faiss_flash/cuda/policies/assign_source.h>
#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

const Engine* cuda_engine() {
    return nullptr;
}

std::unique_ptr<VectorSource> device_source(
        const char* name,
        size_t,
        size_t,
        const DeviceVectors&,
        void*,
        const float*) {
    FAISS_THROW_FMT(
            "%s: vectors on a device need the CUDA engine, which this build "
            "does not have",
            name);
}

std::unique_ptr<VectorSource> device_subset(
        const VectorSource&,
        const std::vector<int64_t>&,
        void*) {
    FAISS_THROW_MSG("there is no CUDA engine in this build");
}

void assign_on_device(
        const AssignmentPolicy&,
        const Model&,
        size_t,
        const DeviceVectors&,
        idx_t*,
        void*) {
    FAISS_THROW_MSG(
            "assign_lists_device: vectors on a device need the CUDA engine, "
            "which this build does not have");
}

} // namespace faiss_flash
