# cmake --install: the library, its headers and the package that
# find_package(faiss_flash) reads.
include(CMakePackageConfigHelpers)

set(_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/faiss_flash")

install(TARGETS faiss_flash EXPORT faiss_flash_targets)
foreach(header IN LISTS FAISS_FLASH_PUBLIC_HEADERS)
    cmake_path(GET header PARENT_PATH folder)
    install(FILES "${PROJECT_SOURCE_DIR}/faiss_flash/${header}"
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/faiss_flash/${folder}")
endforeach()
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE"
    DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(EXPORT faiss_flash_targets
    NAMESPACE faiss_flash::
    DESTINATION "${_package_dir}")

configure_package_config_file(
    "${PROJECT_SOURCE_DIR}/cmake/faiss_flash-config.cmake.in"
    "${PROJECT_BINARY_DIR}/faiss_flash-config.cmake"
    INSTALL_DESTINATION "${_package_dir}")
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/faiss_flash-config-version.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES
    "${PROJECT_BINARY_DIR}/faiss_flash-config.cmake"
    "${PROJECT_BINARY_DIR}/faiss_flash-config-version.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/Findhwy.cmake"
    DESTINATION "${_package_dir}")
