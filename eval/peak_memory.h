#pragma once

#include <cstddef>

namespace faiss_flash {

/// How much memory this process took at most since this was made, beyond
/// what it held at that moment. From Linux's /proc: VmRSS now, and VmHWM
/// after asking the kernel to forget the peak so far.
class PeakMemory {
   public:
    /// Throws std::runtime_error where the kernel cannot reset the peak.
    PeakMemory();

    size_t extra_bytes() const;

   private:
    size_t before_bytes_;
};

} // namespace faiss_flash
