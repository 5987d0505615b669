#pragma once

#include <functional>

namespace faiss_flash {

/// From now on Ctrl-C (SIGINT) and SIGTERM ask for a stop instead of ending
/// the program; the second one ends it. Long work inside FAISS and this
/// library then throws a FaissException at its next interrupt check.
void catch_interrupts();

/// True once a stop was asked for.
bool interrupted();

/// While it lives, `on_check` runs at every interrupt check (of FAISS or of
/// this library's training); checks come from one thread at a time.
class OnInterruptCheck {
   public:
    explicit OnInterruptCheck(std::function<void()> on_check);
    ~OnInterruptCheck();
    OnInterruptCheck(const OnInterruptCheck&) = delete;
    OnInterruptCheck& operator=(const OnInterruptCheck&) = delete;
};

} // namespace faiss_flash
