#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace faiss_flash {

/// A thread that does one task after another, with the caller's device and
/// number of OpenMP threads.
class HelperThread {
   public:
    HelperThread();
    HelperThread(const HelperThread&) = delete;
    /// Waits for the task under way.
    ~HelperThread();

    /// After wait() only.
    void start(std::function<void()> task);
    /// Until the task is done; throws what it threw.
    void wait();

   private:
    void run(int device, int threads);

    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> task_; ///< none: nothing to do
    std::exception_ptr failure_;
    bool stop_ = false;
    std::thread thread_;
};

} // namespace faiss_flash
