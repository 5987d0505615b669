#include <tests/catch_compat.h>

#include <faiss/Index.h>
#include <faiss_flash/version.h>

#include <cstdio>
#include <string>

TEST_CASE("versions are three numbers", "[version][sanitize]") {
    int major = -1, minor = -1, patch = -1;
    char rest = 0;
    REQUIRE(std::sscanf(
                    faiss_flash::version(),
                    "%d.%d.%d%c",
                    &major,
                    &minor,
                    &patch,
                    &rest) == 3);
    CHECK(major >= 0);
}

TEST_CASE("the library and this program use the same FAISS", "[version]") {
    const std::string seen = std::to_string(FAISS_VERSION_MAJOR) + "." +
            std::to_string(FAISS_VERSION_MINOR) + "." +
            std::to_string(FAISS_VERSION_PATCH);
    CHECK(faiss_flash::faiss_version() == seen);
}
