#pragma once

#include <memory>
#include <string>

#include <datasets/row_store.h>

namespace faiss_flash {

/// Opens one two-dimensional dataset of integers or floats of an HDF5 file.
/// Rows are streamed by hyperslab; HDF5 converts them while reading.
std::shared_ptr<const RowStore> open_hdf5_rows(
        const std::string& path,
        const std::string& dataset);

/// True if the HDF5 file has this dataset.
bool hdf5_has_dataset(const std::string& path, const std::string& dataset);

/// A text attribute of the file's root group, of fixed or variable length.
std::string read_hdf5_attribute(
        const std::string& path,
        const std::string& attribute);

} // namespace faiss_flash
