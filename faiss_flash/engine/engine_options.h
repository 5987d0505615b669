#pragma once

#include <cstddef>

namespace faiss_flash {

/// Where an engine may put things; each engine reads what applies to it.
struct EngineOptions {
    /// device memory a training set may take, in bytes; 0: most of what is
    /// free. Data that does not fit is streamed through in every pass.
    size_t max_device_bytes = 0;
    /// device stream (a cudaStream_t) to work on; nullptr: one of its own
    void* stream = nullptr;
};

} // namespace faiss_flash
