#pragma once

#include <memory>
#include <vector>

#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/** Vectors on the current CUDA device, not copied. The CUDA engine reads
 * them in place; others get them as floats, copied to the host as they are
 * read.
 *
 * Throws if this build has no CUDA engine or the vectors cannot be read from
 * a device, and if a coordinate is not finite (it names the vector).
 *
 * @param x        device pointer, (n, d) of `type`; must outlive the source
 * @param stream   a cudaStream_t (nullptr: the default one): x is read in its
 *                 order
 * @param weights  on the host, or nullptr
 */
std::unique_ptr<VectorSource> device_source(
        const char* name,
        size_t n,
        size_t d,
        const DeviceVectors& x,
        void* stream,
        const float* weights);

/// Throws, naming the argument, unless the pointer is memory of the current
/// device.
void check_device_pointer(
        const char* name,
        const char* argument,
        const void* data);

/// Some rows of a device_source, gathered on the device at once.
std::unique_ptr<VectorSource> device_subset(
        const VectorSource& source,
        const std::vector<int64_t>& rows,
        void* stream);

} // namespace faiss_flash
