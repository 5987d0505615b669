#pragma once

#include <algorithm>
#include <exception>
#include <string>

namespace faiss_flash {

/// An exception's message as one line for a program's user: without the
/// "Error in <function> at <file>: Error: '<condition>' failed:" that FAISS
/// puts before it.
inline std::string error_line(const std::exception& error) {
    std::string text = error.what();
    const std::string end_of_prefix = "' failed: ";
    const size_t at = text.find(end_of_prefix);
    if (text.compare(0, 9, "Error in ") == 0 && at != std::string::npos) {
        text.erase(0, at + end_of_prefix.size());
    }
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

} // namespace faiss_flash
