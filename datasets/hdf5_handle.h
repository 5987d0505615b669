#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

namespace faiss_flash {

/// While one of these lives, this thread has the HDF5 library to itself
/// (distributions build it without thread safety) and it prints nothing:
/// errors become exceptions, with the library's own words from
/// hdf5_error(). The caller's error handler is put back at the end.
class Hdf5Section {
   public:
    Hdf5Section() : lock_(mutex()) {
        H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    }
    ~Hdf5Section() {
        H5Eset_auto2(H5E_DEFAULT, print_, print_data_);
    }
    Hdf5Section(const Hdf5Section&) = delete;
    Hdf5Section& operator=(const Hdf5Section&) = delete;

   private:
    static std::recursive_mutex& mutex() {
        static std::recursive_mutex m;
        return m;
    }

    std::lock_guard<std::recursive_mutex> lock_;
    H5E_auto2_t print_ = nullptr;
    void* print_data_ = nullptr;
};

/// Owns one HDF5 identifier; `close` is the function that ends it.
class Hdf5Handle {
   public:
    using Close = herr_t (*)(hid_t);

    Hdf5Handle() = default;
    Hdf5Handle(hid_t id, Close close) : id_(id), close_(close) {}
    Hdf5Handle(Hdf5Handle&& other) noexcept
            : id_(std::exchange(other.id_, -1)),
              close_(other.close_) {}
    Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
        std::swap(id_, other.id_);
        std::swap(close_, other.close_);
        return *this;
    }
    ~Hdf5Handle() {
        reset();
    }

    explicit operator bool() const {
        return id_ >= 0;
    }
    hid_t get() const {
        return id_;
    }
    /// Closes; false if HDF5 reports a failure (a write that did not fit).
    bool reset() {
        if (id_ < 0) {
            return true;
        }
        const Hdf5Section section;
        return close_(std::exchange(id_, -1)) >= 0;
    }

   private:
    hid_t id_ = -1;
    Close close_ = nullptr;
};

/// What the HDF5 library says about its last failure in this thread.
inline std::string hdf5_error() {
    std::string text;
    const auto first = [](unsigned, const H5E_error2_t* error, void* data) {
        auto& out = *static_cast<std::string*>(data);
        if (out.empty() && error->desc) {
            out = error->desc;
        }
        return herr_t(0);
    };
    // Upward starts at the place that failed first.
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &text);
    return text.empty() ? "no reason given" : text;
}

} // namespace faiss_flash
