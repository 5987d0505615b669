#include <faiss_flash/engine/engine.h>

#include <cstdlib>

namespace faiss_flash {

std::vector<std::string> engine_names() {
    return {"cpu", "reference"};
}

const Engine& get_engine(const std::string& name) {
    const char* override = std::getenv("FAISS_FLASH_ENGINE");
    const std::string wanted =
            override && *override ? std::string(override) : name;
    if (wanted == "auto" || wanted == "cpu") {
        return cpu_engine();
    }
    if (wanted == "reference") {
        return reference_engine();
    }
    FAISS_THROW_FMT(
            "engine '%s' is not one of: auto, cpu, reference%s",
            wanted.c_str(),
            wanted == name ? "" : " (asked for by FAISS_FLASH_ENGINE)");
}

} // namespace faiss_flash
