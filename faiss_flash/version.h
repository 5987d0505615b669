#pragma once

namespace faiss_flash {

/// Version of this library as "major.minor.patch".
const char* version();

/// Version of the FAISS this library was compiled against, as
/// "major.minor.patch". Programs that link it must use the same one.
const char* faiss_version();

} // namespace faiss_flash
