#pragma once

#include <string>

#include <eval/arguments.h>
#include <eval/recall.h>

namespace faiss_flash {

/// A data set as the sweep uses it.
struct LoadedTask {
    std::string name;
    bool angular = false; ///< vectors have length one
    SearchTask task;
};

/// Read the vectors and queries the arguments ask for, and their true
/// neighbours; those are computed where the file has none or only a part of
/// the base is used. Throws std::invalid_argument or FaissException.
LoadedTask load_task(const Arguments& arguments);

} // namespace faiss_flash
