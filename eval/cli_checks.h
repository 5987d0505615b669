#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include <CLI/CLI.hpp>

namespace faiss_flash {

/// A check of a number on the command line that can be read: CLI11's own
/// describe an open bound by its 300 digits.
inline CLI::Validator in_bounds(double low, double high) {
    char bounds[64];
    if (high < 1e9) {
        std::snprintf(bounds, sizeof(bounds), "%g to %g", low, high);
    } else {
        std::snprintf(bounds, sizeof(bounds), "at least %g", low);
    }
    const std::string text = bounds;
    return CLI::Validator(
            [low, high, text](std::string& value) -> std::string {
                char* end = nullptr;
                const double number = std::strtod(value.c_str(), &end);
                if (!value.empty() && !*end && number >= low &&
                    number <= high) {
                    return "";
                }
                return "'" + value + "' should be a number, " + text;
            },
            text);
}

inline CLI::Validator at_least(double low) {
    return in_bounds(low, 1e9);
}

} // namespace faiss_flash
