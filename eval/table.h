#pragma once

#include <string>
#include <vector>

#include <eval/summary.h>

namespace faiss_flash {

/// The summary as text for a terminal: per dataset, nlist and codec, one line
/// per method with the factors against stock FAISS at every recall target,
/// raw / unique.
std::string summary_table(const std::vector<SummaryEntry>& entries);

} // namespace faiss_flash
