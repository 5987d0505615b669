#include <eval/peak_memory.h>

#include <malloc.h>

#include <fstream>
#include <stdexcept>
#include <string>

namespace faiss_flash {

namespace {

/// A field of /proc/self/status, which gives KiB.
size_t status_bytes(const std::string& field) {
    std::ifstream file("/proc/self/status");
    std::string word;
    while (file >> word) {
        size_t kib = 0;
        if (word == field + ":" && file >> kib) {
            return kib * 1024;
        }
    }
    throw std::runtime_error("/proc/self/status has no " + field);
}

} // namespace

PeakMemory::PeakMemory() {
    // Free memory that malloc holds would be taken again unseen.
    malloc_trim(0);
    std::ofstream reset("/proc/self/clear_refs");
    reset << "5" << std::flush; // 5: forget the peak
    if (!reset) {
        throw std::runtime_error(
                "peak memory cannot be measured: /proc/self/clear_refs "
                "refuses to be written");
    }
    before_bytes_ = status_bytes("VmRSS");
}

size_t PeakMemory::extra_bytes() const {
    const size_t peak = status_bytes("VmHWM");
    return peak > before_bytes_ ? peak - before_bytes_ : 0;
}

} // namespace faiss_flash
