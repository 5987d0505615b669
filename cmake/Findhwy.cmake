# Google Highway as the target hwy::hwy: from its own CMake package where the
# distribution ships one, else from the header and the library.
# Installed beside faiss_flash's package, which needs the same target.

find_package(hwy CONFIG QUIET)
if(TARGET hwy::hwy)
    set(hwy_FOUND TRUE)
    if(NOT hwy_FIND_QUIETLY AND NOT _hwy_reported)
        message(STATUS "Highway ${hwy_VERSION} from ${hwy_DIR}")
        set(_hwy_reported TRUE)
    endif()
    return()
endif()

find_path(HWY_INCLUDE_DIR hwy/highway.h)
find_library(HWY_LIBRARY hwy)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(hwy
    REQUIRED_VARS HWY_LIBRARY HWY_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libhwy-dev")
if(hwy_FOUND)
    add_library(hwy::hwy UNKNOWN IMPORTED)
    set_target_properties(hwy::hwy PROPERTIES
        IMPORTED_LOCATION "${HWY_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${HWY_INCLUDE_DIR}")
    if(HWY_LIBRARY MATCHES "\\.so$")
        set_property(TARGET hwy::hwy PROPERTY
            INTERFACE_COMPILE_DEFINITIONS HWY_SHARED_DEFINE)
    endif()
endif()
