#include <faiss_flash/engine/engine.h>

#include <cstdlib>

namespace faiss_flash {

namespace {

std::vector<const Engine*> engines() {
    std::vector<const Engine*> all = {&cpu_engine(), &reference_engine()};
    if (const Engine* cuda = cuda_engine()) {
        all.insert(all.begin(), cuda);
    }
    return all;
}

} // namespace

std::vector<std::string> engine_names() {
    std::vector<std::string> names;
    for (const Engine* engine : engines()) {
        names.push_back(engine->name());
    }
    return names;
}

const Engine& get_engine(const std::string& name) {
    const char* override = std::getenv("FAISS_FLASH_ENGINE");
    const std::string wanted =
            override && *override ? std::string(override) : name;
    const std::vector<const Engine*> all = engines();
    if (wanted == "auto") {
        return *all.front();
    }
    std::string known = "auto";
    for (const Engine* engine : all) {
        if (wanted == engine->name()) {
            return *engine;
        }
        known += std::string(", ") + engine->name();
    }
    FAISS_THROW_FMT(
            "engine '%s'%s is not one of those that can run here: %s",
            wanted.c_str(),
            wanted == name ? "" : " (asked for by FAISS_FLASH_ENGINE)",
            known.c_str());
}

} // namespace faiss_flash
