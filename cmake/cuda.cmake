# The CUDA engine: FAISS_FLASH_CUDA=AUTO builds it where a toolkit is found,
# ON insists, OFF leaves it out. Sets FAISS_FLASH_WITH_CUDA.
#
# Kernels are compiled for Hopper (sm_90a) and for sm_80 as PTX, which every
# later GPU runs too; no kernel is compiled at run time on Hopper.

set(FAISS_FLASH_CUDA "AUTO" CACHE STRING "CUDA engine: AUTO, ON or OFF")
set_property(CACHE FAISS_FLASH_CUDA PROPERTY STRINGS AUTO ON OFF)
set(FAISS_FLASH_WITH_CUDA OFF)

if(FAISS_FLASH_CUDA STREQUAL "AUTO" AND FAISS_FLASH_SANITIZE)
    message(STATUS "CUDA engine: left out of a sanitizer build")
    return()
elseif(NOT FAISS_FLASH_CUDA)
    return()
endif()

# The toolkit's folder is often not on PATH.
if(NOT CMAKE_CUDA_COMPILER)
    find_program(_nvcc nvcc HINTS ENV CUDACXX ENV CUDA_HOME
        PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(_nvcc)
        set(CMAKE_CUDA_COMPILER "${_nvcc}")
    endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
    # Flags are given per target below.
    set(CMAKE_CUDA_ARCHITECTURES OFF)
    enable_language(CUDA)
    find_package(CUDAToolkit QUIET)
endif()
if(NOT CUDAToolkit_FOUND OR CUDAToolkit_VERSION VERSION_LESS 13.0)
    set(_why "no CUDA toolkit of version 13.0 or newer was found")
    if(NOT FAISS_FLASH_CUDA STREQUAL "AUTO")
        message(FATAL_ERROR "FAISS_FLASH_CUDA=${FAISS_FLASH_CUDA}: ${_why}")
    endif()
    message(STATUS "CUDA engine: left out, ${_why}")
    return()
endif()
message(STATUS "CUDA engine: toolkit ${CUDAToolkit_VERSION}")
set(FAISS_FLASH_WITH_CUDA ON)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# faiss_flash_cuda_flags(<target> <gencode>...): compile for these, and fail
# on a register spill or on products that ptxas had to serialise (C7508,
# C7510, C7514): both are bugs of a kernel, not matters of taste.
function(faiss_flash_cuda_flags target)
    set(flags "")
    foreach(gencode IN LISTS ARGN)
        list(APPEND flags "SHELL:-gencode ${gencode}")
    endforeach()
    target_compile_options(${target} PRIVATE
        "$<$<COMPILE_LANGUAGE:CUDA>:${flags};-lineinfo;-Xptxas=-warn-spills,-Werror>"
        "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fopenmp,-Wall>")
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}")
    set_target_properties(${target} PROPERTIES
        CUDA_ARCHITECTURES OFF
        POSITION_INDEPENDENT_CODE ON)
    target_link_libraries(${target} PRIVATE
        faiss OpenMP::OpenMP_CXX CUDA::cudart_static)
endfunction()
