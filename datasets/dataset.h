#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <datasets/vector_file.h>

namespace faiss_flash {

/// L2: squared Euclidean distance. Angular: 1 - cosine; vectors are read
/// scaled to length 1, where it is 1 - inner product.
enum class DatasetMetric { L2, Angular };

/// "l2" or "angular".
const char* metric_name(DatasetMetric metric);

/// Accepts l2, euclidean, angular, cosine; throws naming the value.
DatasetMetric parse_metric(const std::string& text);

/// A search benchmark: vectors to index, queries, and the queries' true
/// neighbours.
struct Dataset {
    /// File name without folder and extension, or the folder's or prefix's
    /// last part.
    std::string name;
    DatasetMetric metric = DatasetMetric::L2;

    /// Vectors to index; on disk, see VectorFile. Scaled to length 1 if
    /// angular, where rows of zeros stay zeros (ZeroRow::keep).
    VectorFile base;

    size_t nq = 0;
    /// (nq, base.d()), row-major; scaled to length 1 if angular, where a
    /// query of zeros is an error: it has no nearest neighbours.
    std::vector<float> queries;

    /// Ids per query in `ground_truth`; 0 if the set has none.
    size_t gtk = 0;
    /// (nq, gtk), nearest first; ids in [0, base.n()).
    std::vector<int64_t> ground_truth;
};

/// Opens a data set from one path:
///  - an ann-benchmarks .hdf5 file: datasets `train`, `test`, optionally
///    `neighbors`, and attribute `distance` (euclidean or angular);
///  - a folder with one base, one query and at most one ground-truth file,
///    recognised by the words base, query/queries, groundtruth/gt in their
///    names (sift_base.fvecs, query.public.10K.fbin, groundtruth.ibin);
///  - a prefix of such files in one folder: data/sift for data/sift_base.fvecs.
///
/// `metric` applies to folders and prefixes, whose files do not say; an HDF5
/// file's own attribute wins.
///
/// Throws faiss::FaissException naming the file: anything open_vectors()
/// refuses, queries that cannot be scaled to length 1 though the metric asks
/// for it, queries of another dimension than the base, ground truth for
/// another number of queries or with ids outside the base, no or several
/// candidates for one part.
Dataset open_dataset(
        const std::string& path,
        DatasetMetric metric = DatasetMetric::L2);

} // namespace faiss_flash
