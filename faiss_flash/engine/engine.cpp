#include <faiss_flash/engine/engine.h>

#include <cstdlib>

namespace faiss_flash {

namespace {

std::vector<const Engine*> host_engines() {
    return {&cpu_engine(), &reference_engine()};
}

std::vector<const Engine*> engines() {
    std::vector<const Engine*> all = host_engines();
    if (const Engine* cuda = cuda_engine()) {
        all.insert(all.begin(), cuda);
    }
    return all;
}

/// nullptr: none of them has the name.
const Engine* find(
        const std::vector<const Engine*>& engines,
        const std::string& name) {
    for (const Engine* engine : engines) {
        if (name == engine->name()) {
            return engine;
        }
    }
    return nullptr;
}

/// The environment comes first.
std::string asked_for(const std::string& name) {
    const char* override = std::getenv("FAISS_FLASH_ENGINE");
    return override && *override ? override : name;
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
    const std::string wanted = asked_for(name);
    // these without waking a device
    if (const Engine* engine = find(host_engines(), wanted)) {
        return *engine;
    }
    const std::vector<const Engine*> all = engines();
    if (wanted == "auto") {
        return *all.front();
    }
    if (const Engine* engine = find(all, wanted)) {
        return *engine;
    }
    std::string known = "auto";
    for (const Engine* engine : all) {
        known += std::string(", ") + engine->name();
    }
    FAISS_THROW_FMT(
            "engine '%s'%s is not one of those that can run here: %s",
            wanted.c_str(),
            wanted == name ? "" : " (asked for by FAISS_FLASH_ENGINE)",
            known.c_str());
}

const Engine& get_engine(const std::string& name, double multiply_adds) {
    // a few milliseconds of a CPU, and of making device memory and streams
    constexpr double few = 2e8;
    return asked_for(name) == "auto" && multiply_adds < few ? cpu_engine()
                                                            : get_engine(name);
}

} // namespace faiss_flash
