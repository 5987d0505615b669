#pragma once

// Data and helpers for the tests of engines, trainer and clustering.

#include <tests/catch_compat.h>

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <faiss/impl/FaissException.h>

#include <datasets/dataset.h>
#include <faiss_flash/trainer/model.h>

namespace test {

/// n vectors of dimension d.
struct Rows {
    size_t n = 0;
    size_t d = 0;
    std::vector<float> x; ///< (n, d)

    const float* row(size_t i) const {
        return x.data() + i * d;
    }
};

inline Rows normal_rows(
        size_t n,
        size_t d,
        uint32_t seed,
        double spread = 1,
        double mean = 0) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(mean, spread);
    Rows rows{n, d, std::vector<float>(n * d)};
    for (float& value : rows.x) {
        value = float(normal(random));
    }
    return rows;
}

/// Rows around `centers` random centres: what clustering is for.
inline Rows blob_rows(
        size_t n,
        size_t d,
        size_t centers,
        double apart,
        uint32_t seed) {
    const Rows center = normal_rows(centers, d, seed, apart);
    Rows rows = normal_rows(n, d, seed + 1);
    std::mt19937 random(seed + 2);
    for (size_t i = 0; i < n; i++) {
        const float* c = center.row(random() % centers);
        for (size_t j = 0; j < d; j++) {
            rows.x[i * d + j] += c[j];
        }
    }
    return rows;
}

/// The first n SIFT descriptors of the bundled sample, d = 128.
inline Rows real_rows(size_t n) {
    static const faiss_flash::Dataset sample = faiss_flash::open_dataset(
            FAISS_FLASH_DATASETS_DIR "/wallsift-128-euclidean.hdf5");
    Rows rows{n, sample.base.d(), {}};
    rows.x.resize(n * rows.d);
    sample.base.read(0, n, rows.x.data());
    return rows;
}

/// n weights in (0, 2], some of them 0.
inline std::vector<float> random_weights(size_t n, uint32_t seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(0.01f, 2.0f);
    std::vector<float> weights(n);
    for (float& w : weights) {
        w = random() % 7 == 0 ? 0 : uniform(random);
    }
    weights[0] = 1;
    return weights;
}

inline double relative_gap(double a, double b) {
    return std::abs(a - b) / std::max({std::abs(a), std::abs(b), 1e-300});
}

/// Largest error seen in units of its bound, and where.
class Worst {
   public:
    void see(double error, double bound, size_t i, size_t j = 0) {
        double ratio = error <= 0 ? 0 : error / bound;
        if (std::isnan(error) || std::isnan(ratio)) {
            ratio = std::numeric_limits<double>::infinity();
        }
        if (ratio > value_) {
            value_ = ratio;
            error_ = error;
            i_ = i;
            j_ = j;
        }
    }
    double value() const {
        return value_;
    }
    std::string where() const {
        return "worst error " + std::to_string(error_) + " at (" +
                std::to_string(i_) + ", " + std::to_string(j_) + ")";
    }

   private:
    double value_ = 0;
    double error_ = 0;
    size_t i_ = 0, j_ = 0;
};

#define CHECK_WORST(worst)           \
    do {                             \
        INFO((worst).where());       \
        CHECK((worst).value() <= 1); \
    } while (0)

/// An environment variable for as long as this lives.
class EnvironmentVariable {
   public:
    EnvironmentVariable(const char* name, const char* value) : name_(name) {
        const char* old = std::getenv(name);
        was_set_ = old != nullptr;
        old_ = old ? old : "";
        if (value) {
            setenv(name, value, 1);
        } else {
            unsetenv(name);
        }
    }
    ~EnvironmentVariable() {
        if (was_set_) {
            setenv(name_, old_.c_str(), 1);
        } else {
            unsetenv(name_);
        }
    }

   private:
    const char* name_;
    bool was_set_;
    std::string old_;
};

/// The number of OpenMP threads for as long as this lives.
class Threads {
   public:
    explicit Threads(int count) : old_(omp_get_max_threads()) {
        omp_set_num_threads(count);
    }
    ~Threads() {
        omp_set_num_threads(old_);
    }

   private:
    int old_;
};

/// What f() writes to a file descriptor (1: stdout, 2: stderr).
template <class F>
std::string captured(int descriptor, F&& f) {
    fflush(stdout);
    fflush(stderr);
    FILE* file = std::tmpfile();
    REQUIRE(file != nullptr);
    const int saved = dup(descriptor);
    dup2(fileno(file), descriptor);
    const auto restore = [&] {
        fflush(stdout);
        fflush(stderr);
        dup2(saved, descriptor);
        close(saved);
    };
    try {
        f();
    } catch (...) {
        restore();
        std::fclose(file);
        throw;
    }
    restore();
    std::string text;
    std::rewind(file);
    for (int c; (c = std::fgetc(file)) != EOF;) {
        text += char(c);
    }
    std::fclose(file);
    return text;
}

/// The message of the FaissException f() throws; a failure if it does not.
template <class F>
std::string message_of(F&& f) {
    try {
        f();
    } catch (const faiss::FaissException& error) {
        return error.what();
    }
    FAIL("no FaissException");
    return "";
}

/// True if both hold the same bytes.
template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() &&
            (a.empty() ||
             memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

} // namespace test
