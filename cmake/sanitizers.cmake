# One sanitizer build per folder: see the presets asan and tsan.
if(FAISS_FLASH_SANITIZE STREQUAL "address")
    # float-divide-by-zero and the like are not in "undefined": IEEE defines
    # them. Any finding ends the program, so that a test cannot pass with one.
    # nonnull-attribute is left out: copying an empty faiss::AlignedTable (in
    # a header of FAISS 1.7.3) is a memcpy of 0 bytes from a null pointer.
    add_compile_options(-fsanitize=address,undefined
        -fno-sanitize=nonnull-attribute
        -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=address,undefined)
elseif(FAISS_FLASH_SANITIZE STREQUAL "thread")
    if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR
            "FAISS_FLASH_SANITIZE=thread needs clang: ThreadSanitizer does "
            "not see the barriers of GCC's OpenMP runtime and reports every "
            "parallel loop; clang's runtime tells it (archer).")
    endif()
    add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
    add_link_options(-fsanitize=thread)
elseif(FAISS_FLASH_SANITIZE)
    message(FATAL_ERROR
        "FAISS_FLASH_SANITIZE=${FAISS_FLASH_SANITIZE}: must be empty, "
        "address or thread.")
endif()
