# Writes OUTPUT (a header that defines FAISS_FLASH_COMMIT) when the commit of
# SOURCE_DIR has changed; "+" marks uncommitted changes, "unknown" no git.
execute_process(
    COMMAND git -C "${SOURCE_DIR}" describe --always --dirty=+ --abbrev=12
        --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
    set(commit "unknown")
endif()
set(text "#define FAISS_FLASH_COMMIT \"${commit}\"\n")
if(EXISTS "${OUTPUT}")
    file(READ "${OUTPUT}" old)
endif()
if(NOT "${old}" STREQUAL "${text}")
    file(WRITE "${OUTPUT}" "${text}")
endif()
