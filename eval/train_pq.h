#pragma once

#include <faiss/IndexIVFPQ.h>

#include <eval/trained_quantizer.h>

namespace faiss_flash {

/** Train the product quantizer of an index whose coarse quantizer is full, on
 * residuals to the nearest centroid of at most 65536 evenly spaced rows of x
 * (n, d), n ≥ 256.
 *
 * The same k-means as IndexIVFPQ::train runs for every sub-quantizer (same
 * iterations and number of vectors), on this library's engine: on two cores
 * FAISS's own needs minutes for what takes seconds here, and it is not what
 * is compared. Every method gets it, stock FAISS included.
 */
TrainedPQ train_pq(
        const faiss::IndexIVFPQ& index,
        const TrainingOptions& options,
        size_t n,
        const float* x);

} // namespace faiss_flash
