#include <faiss_flash/version.h>

#include <faiss/Index.h>

#define FAISS_FLASH_TEXT_OF(x) #x
#define FAISS_FLASH_TEXT(x) FAISS_FLASH_TEXT_OF(x)

namespace faiss_flash {

const char* version() {
    return FAISS_FLASH_VERSION;
}

const char* faiss_version() {
    return FAISS_FLASH_TEXT(FAISS_VERSION_MAJOR) "." FAISS_FLASH_TEXT(
            FAISS_VERSION_MINOR) "." FAISS_FLASH_TEXT(FAISS_VERSION_PATCH);
}

} // namespace faiss_flash
