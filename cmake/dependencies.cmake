# Everything the project links. FAISS and OpenMP are what the library needs to
# be used; the rest is needed to build it, or only by the harness and tests.

# Before FAISS: the package FAISS installs names OpenMP::OpenMP_CXX and does
# not look for it.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Threads REQUIRED)

# -DFAISS_ROOT=<prefix> is the one switch that picks another FAISS.
# A faiss_DIR found under an earlier value would win over the new one.
if(NOT "${FAISS_ROOT}" STREQUAL "${FAISS_FLASH_LAST_FAISS_ROOT}")
    unset(faiss_DIR CACHE)
endif()
set(FAISS_FLASH_LAST_FAISS_ROOT "${FAISS_ROOT}" CACHE INTERNAL "")
set(faiss_ROOT "${FAISS_ROOT}")
find_package(faiss CONFIG QUIET)
if(NOT faiss_FOUND)
    message(FATAL_ERROR
        "FAISS was not found. Install libfaiss-dev and libopenblas-dev, or "
        "pass -DFAISS_ROOT=<prefix> with the folder FAISS is installed in.")
endif()
if(FAISS_ROOT)
    cmake_path(IS_PREFIX FAISS_ROOT "${faiss_DIR}" NORMALIZE _under_root)
    if(NOT _under_root)
        message(FATAL_ERROR
            "FAISS_ROOT=${FAISS_ROOT} holds no FAISS package (found one in "
            "${faiss_DIR}). Give the prefix FAISS was installed in.")
    endif()
endif()

# The header is the truth; packages carry versions of their own.
get_target_property(_faiss_include faiss INTERFACE_INCLUDE_DIRECTORIES)
file(STRINGS "${_faiss_include}/faiss/Index.h" _faiss_version_lines
    REGEX "#define FAISS_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE
    ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3"
    FAISS_FLASH_FAISS_VERSION "${_faiss_version_lines}")
message(STATUS "FAISS ${FAISS_FLASH_FAISS_VERSION} from ${faiss_DIR}")
if(FAISS_FLASH_FAISS_VERSION VERSION_LESS 1.7.3)
    message(FATAL_ERROR
        "An installed FAISS of version 1.7.3 or newer is needed; "
        "${faiss_DIR} has version '${FAISS_FLASH_FAISS_VERSION}'.")
endif()

find_package(hwy MODULE REQUIRED)

# xxHash is used from its header alone: nothing to link for our users.
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
add_library(faiss_flash_xxhash INTERFACE)
target_include_directories(faiss_flash_xxhash SYSTEM INTERFACE
    "$<BUILD_INTERFACE:${XXHASH_INCLUDE_DIR}>")
target_compile_definitions(faiss_flash_xxhash INTERFACE XXH_INLINE_ALL=)

find_package(nlohmann_json CONFIG REQUIRED)

if(FAISS_FLASH_EVAL OR FAISS_FLASH_TESTS)
    find_package(CLI11 CONFIG REQUIRED)

    # Only the C interface of HDF5, and never its MPI build.
    set(HDF5_PREFER_PARALLEL OFF)
    find_package(HDF5 REQUIRED COMPONENTS C)
    add_library(faiss_flash_hdf5 INTERFACE)
    target_include_directories(faiss_flash_hdf5 SYSTEM INTERFACE
        ${HDF5_C_INCLUDE_DIRS})
    target_compile_definitions(faiss_flash_hdf5 INTERFACE
        ${HDF5_C_DEFINITIONS})
    target_link_libraries(faiss_flash_hdf5 INTERFACE ${HDF5_C_LIBRARIES})
endif()

if(FAISS_FLASH_EVAL)
    find_package(benchmark CONFIG QUIET)
endif()
