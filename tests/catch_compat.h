#pragma once

// One include for both Catch2 generations. Tests use the macros both have
// (TEST_CASE, SECTION, GENERATE, CHECK, REQUIRE_THROWS_WITH, ...),
// Catch::Approx, and Catch::Matchers::ContainsSubstring, which v2 calls
// Contains.

#if FAISS_FLASH_CATCH_MAJOR >= 3
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
namespace Catch {
using Detail::Approx;
namespace Matchers {
inline StdString::ContainsMatcher ContainsSubstring(
        const std::string& text,
        CaseSensitive::Choice sensitivity = CaseSensitive::Yes) {
    return ::Catch::Contains(text, sensitivity);
}
} // namespace Matchers
} // namespace Catch
#endif
