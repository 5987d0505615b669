#pragma once

#include <vector>

#include <faiss_flash/faiss_compat.h>

namespace faiss_flash {

/// Puts a coarse quantizer back as it was unless keep() is called: training
/// that fails half-way must not leave one behind that looks trained.
class QuantizerRestore {
   public:
    explicit QuantizerRestore(faiss::Index& quantizer)
            : quantizer_(quantizer),
              was_trained_(quantizer.is_trained),
              vectors_(quantizer.ntotal * quantizer.d) {
        if (!vectors_.empty()) {
            quantizer.reconstruct_n(0, quantizer.ntotal, vectors_.data());
        }
    }

    ~QuantizerRestore() {
        if (kept_) {
            return;
        }
        try {
            quantizer_.reset();
            quantizer_.is_trained = was_trained_;
            if (!vectors_.empty()) {
                quantizer_.add(vectors_.size() / quantizer_.d, vectors_.data());
            }
        } catch (...) {
            // the error that led here is the one to report
        }
    }

    QuantizerRestore(const QuantizerRestore&) = delete;
    QuantizerRestore& operator=(const QuantizerRestore&) = delete;

    void keep() {
        kept_ = true;
    }

   private:
    faiss::Index& quantizer_;
    bool was_trained_;
    std::vector<float> vectors_;
    bool kept_ = false;
};

} // namespace faiss_flash
