#pragma once

#include <cstdio>

#include <faiss_flash/engine/engine.h>

namespace test {

/// Says so where there is no device; CTest then counts the case as skipped.
inline bool no_device() {
    if (faiss_flash::cuda_engine()) {
        return false;
    }
    std::puts("SKIPPED: no CUDA device");
    return true;
}

} // namespace test
