#pragma once

// About 106 bits as an unevaluated sum of two doubles (T. J. Dekker, A
// floating-point technique for extending the available precision, 1971).

#include <cstdint>

namespace faiss_flash {

struct DoubleDouble {
    double high = 0, low = 0;

    /// Exact for |value| < 2⁶².
    __device__ static DoubleDouble of(int64_t value) {
        const double high = value;
        return {high, double(value - (int64_t)high)};
    }
    /// a · b, exact up to the last bits
    __device__ static DoubleDouble
    product(const DoubleDouble& a, const DoubleDouble& b) {
        const double high = a.high * b.high;
        double low = fma(a.high, b.high, -high);
        low += a.high * b.low + a.low * b.high;
        return renormalised(high, low);
    }
    __device__ DoubleDouble operator+(const DoubleDouble& other) const {
        const double sum = high + other.high;
        const double of_other = sum - high;
        const double lost =
                (high - (sum - of_other)) + (other.high - of_other);
        return renormalised(sum, lost + low + other.low);
    }
    __device__ DoubleDouble operator-() const {
        return {-high, -low};
    }
    __device__ DoubleDouble times_power(double power_of_two) const {
        return {high * power_of_two, low * power_of_two};
    }
    __device__ DoubleDouble divided_by(double divisor) const {
        const double first = high / divisor;
        const double rest = fma(-first, divisor, high) + low;
        return renormalised(first, rest / divisor);
    }

   private:
    __device__ static DoubleDouble renormalised(double high, double low) {
        const double sum = high + low;
        return {sum, low - (sum - high)};
    }
};

} // namespace faiss_flash
