#include <eval/interrupt.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <utility>

#include <faiss/impl/AuxIndexStructures.h>

namespace faiss_flash {

namespace {

std::atomic<bool> stop_asked{false}; // lock-free: safe in a handler

std::function<void()>& check_hook() {
    static std::function<void()> hook;
    return hook;
}

extern "C" void ask_to_stop(int) {
    stop_asked = true;
}

struct StopCallback : faiss::InterruptCallback {
    bool want_interrupt() override {
        if (check_hook()) {
            check_hook()();
        }
        return stop_asked;
    }
};

void set_callback() {
    if (!faiss::InterruptCallback::instance) {
        faiss::InterruptCallback::instance = std::make_unique<StopCallback>();
    }
}

} // namespace

void catch_interrupts() {
    struct sigaction action = {};
    action.sa_handler = ask_to_stop;
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    set_callback();
}

bool interrupted() {
    return stop_asked;
}

OnInterruptCheck::OnInterruptCheck(std::function<void()> on_check) {
    set_callback();
    check_hook() = std::move(on_check);
}

OnInterruptCheck::~OnInterruptCheck() {
    check_hook() = nullptr;
}

} // namespace faiss_flash
