// Compiled instead of the CUDA engine where there is no CUDA compiler.

#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

const Engine* cuda_engine() {
    return nullptr;
}

} // namespace faiss_flash
