#include <eval/run_info.h>

#include <dlfcn.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <ctime>
#include <fstream>

#include <commit.h>
#include <faiss_flash/version.h>

namespace faiss_flash {

namespace {

/// The value of the first line "key : value" or key="value".
std::string value_in_file(
        const char* path,
        const std::string& key,
        char separator) {
    std::ifstream file(path);
    std::string line;
    while (std::getline(file, line)) {
        const size_t at = line.find(separator);
        if (line.compare(0, key.size(), key) != 0 || at == std::string::npos) {
            continue;
        }
        std::string value = line.substr(at + 1);
        const char* blank = " \t\"";
        const size_t first = value.find_first_not_of(blank);
        if (first == std::string::npos) {
            return "";
        }
        return value.substr(first, value.find_last_not_of(blank) - first + 1);
    }
    return "";
}

/// OpenBLAS is asked at run time: another BLAS may be installed instead.
std::string blas_info() {
    using Question = char* (*)();
    std::string text;
    for (const char* name : {"openblas_get_config", "openblas_get_corename"}) {
        const auto question =
                reinterpret_cast<Question>(dlsym(RTLD_DEFAULT, name));
        if (question) {
            text += (text.empty() ? "" : "; kernels: ") +
                    std::string(question());
        }
    }
    return text;
}

} // namespace

std::string build_commit() {
    return FAISS_FLASH_COMMIT;
}

std::string version_line() {
    return std::string("faiss_flash ") + version() + " (" + build_commit() +
            "), FAISS " + faiss_version();
}

nlohmann::ordered_json machine_info() {
    nlohmann::ordered_json info;
    std::string cpu = value_in_file("/proc/cpuinfo", "model name", ':');
    utsname system = {};
    uname(&system);
    info["cpu"] = cpu.empty() ? std::string(system.machine) : cpu;
    info["cores"] = sysconf(_SC_NPROCESSORS_ONLN);
    const double bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) *
            static_cast<double>(sysconf(_SC_PAGESIZE));
    info["memory_gib"] = std::round(bytes / (1 << 30) * 10) / 10;
    std::string os = value_in_file("/etc/os-release", "PRETTY_NAME", '=');
    info["os"] = os.empty() ? std::string(system.sysname) : os;
    const std::string blas = blas_info();
    if (!blas.empty()) {
        info["blas"] = blas;
    }
    return info;
}

std::string utc_now() {
    const std::time_t now = std::time(nullptr);
    std::tm parts = {};
    gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts);
    return text;
}

} // namespace faiss_flash
