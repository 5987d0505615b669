#pragma once

#include <functional>
#include <string>

#include <datasets/ground_truth.h>
#include <datasets/vector_file.h>

namespace faiss_flash {

/// Writes the ids as .ivecs or .ibin (int32), by the path's extension.
/// Whole or absent. Throws faiss::FaissException for another extension, an
/// id above 2^31 - 1 and anything the disk refuses.
void write_id_file(const std::string& path, const GroundTruth& truth);

/// Writes a complete ann-benchmarks HDF5 file: `train` (copied from base in
/// blocks), `test`, `neighbors`, `distances` (euclidean: not squared;
/// angular: 1 - cosine) and attribute `distance`. Vectors that are stored as
/// bytes stay bytes, all others become float32. Whole or absent.
/// `progress` is called with the rows of `train` written so far.
void write_hdf5_dataset(
        const std::string& path,
        const VectorFile& base,
        const VectorFile& queries,
        const GroundTruth& truth,
        DatasetMetric metric,
        const std::function<void(size_t)>& progress = {});

} // namespace faiss_flash
