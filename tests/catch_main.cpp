// Catch2 v3 brings its own main; v2 has it made here, once for all programs.
#if FAISS_FLASH_CATCH_MAJOR < 3
#define CATCH_CONFIG_MAIN
#endif
#include <tests/catch_compat.h>
