# Warnings for our own targets only; nothing of this reaches users.
function(faiss_flash_warnings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra)
    if(FAISS_FLASH_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
    endif()
endfunction()
