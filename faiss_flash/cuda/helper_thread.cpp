#include <faiss_flash/cuda/helper_thread.h>

#include <omp.h>

#include <utility>

#include <faiss_flash/cuda/device.h>

namespace faiss_flash {

HelperThread::HelperThread() {
    int device = 0;
    FAISS_FLASH_CUDA_CHECK(cudaGetDevice(&device));
    const int threads = omp_get_max_threads();
    thread_ = std::thread([=] { run(device, threads); });
}

HelperThread::~HelperThread() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void HelperThread::start(std::function<void()> task) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        task_ = std::move(task);
    }
    changed_.notify_all();
}

void HelperThread::wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !task_; });
    if (failure_) {
        std::rethrow_exception(std::exchange(failure_, nullptr));
    }
}

void HelperThread::run(int device, int threads) {
    omp_set_num_threads(threads); // of this thread's parallel regions
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return stop_ || task_; });
        if (!task_) {
            return;
        }
        lock.unlock();
        std::exception_ptr failure;
        try {
            FAISS_FLASH_CUDA_CHECK(cudaSetDevice(device));
            task_();
        } catch (...) {
            failure = std::current_exception();
        }
        lock.lock();
        failure_ = failure;
        task_ = nullptr;
        changed_.notify_all();
    }
}

} // namespace faiss_flash
