#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace faiss_flash {

/// Short hash of the commit this was built from; "+" marks uncommitted
/// changes, "unknown" a build outside git.
std::string build_commit();

/// "faiss_flash 0.1.0 (commit), FAISS 1.7.3".
std::string version_line();

/// Where this runs: {cpu, cores, memory_gib, os, blas}; blas only where
/// OpenBLAS can say which kernels it picked.
nlohmann::ordered_json machine_info();

/// The time as "2024-05-31 12:00:00 UTC".
std::string utc_now();

} // namespace faiss_flash
