#pragma once

#include <cstdint>

/// Milliseconds per iteration of faiss::Clustering with a GpuIndexFlatL2 on
/// device 0, from the difference between trainings of 1 and of 4 iterations;
/// negative where FAISS was built without its GPU part.
double faiss_gpu_iteration_ms(int64_t n, int k, int d, const float* x);
