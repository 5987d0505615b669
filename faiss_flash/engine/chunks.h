#pragma once

#include <algorithm>
#include <exception>
#include <mutex>
#include <vector>

#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/// Call fn(i0, count, x, w) for consecutive row ranges of at most `rows`.
template <class Fn>
void for_each_chunk(const VectorSource& source, size_t rows, Fn&& fn) {
    std::vector<float> x_buffer, w_buffer;
    for (size_t i0 = 0; i0 < source.n(); i0 += rows) {
        const size_t count = std::min(rows, source.n() - i0);
        const float* x = source.rows(i0, count, x_buffer);
        const float* w = source.weights(i0, count, w_buffer);
        fn(i0, count, x, w);
    }
}

/// Carries the first exception out of an OpenMP region.
class OmpExceptions {
   public:
    template <class Fn>
    void run(Fn&& fn) {
        try {
            fn();
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!first_) {
                first_ = std::current_exception();
            }
        }
    }
    void rethrow() {
        if (first_) {
            std::rethrow_exception(first_);
        }
    }

   private:
    std::mutex mutex_;
    std::exception_ptr first_;
};

} // namespace faiss_flash
