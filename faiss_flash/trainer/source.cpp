#include <faiss_flash/trainer/source.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace faiss_flash {

void VectorSource::gather(const int64_t* numbers, size_t count, float* to)
        const {
    std::vector<float> buffer;
    for (size_t i = 0; i < count; i++) {
        memcpy(to + i * d_, rows(numbers[i], 1, buffer), d_ * sizeof(float));
    }
}

namespace {

class ArraySource : public VectorSource {
   public:
    ArraySource(size_t n, size_t d, const float* x, const float* w)
            : VectorSource(n, d),
              x_(x),
              w_(w) {}

    const float* rows(size_t i0, size_t, std::vector<float>&) const override {
        return x_ + i0 * d();
    }
    void gather(const int64_t* numbers, size_t count, float* to)
            const override {
        const size_t dim = d();
        // random rows are bound by memory latency: let every core wait
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < (int64_t)count; i++) {
            memcpy(to + i * dim, x_ + numbers[i] * dim, dim * sizeof(float));
        }
    }
    const float* weights(size_t i0, size_t, std::vector<float>&)
            const override {
        return w_ ? w_ + i0 : nullptr;
    }

   private:
    const float* x_;
    const float* w_;
};

class CodecSource : public VectorSource {
   public:
    CodecSource(
            size_t n,
            const faiss::Index& codec,
            const uint8_t* codes,
            size_t block,
            const float* w)
            : VectorSource(n, codec.d),
              codec_(codec),
              codes_(codes),
              block_(std::max<size_t>(block, 1)),
              w_(w) {}

    const float* rows(size_t i0, size_t count, std::vector<float>& buffer)
            const override {
        buffer.resize(count * d());
        const size_t code_size = codec_.sa_code_size();
        for (size_t i = 0; i < count; i += block_) {
            codec_.sa_decode(
                    std::min(block_, count - i),
                    codes_ + (i0 + i) * code_size,
                    buffer.data() + i * d());
        }
        return buffer.data();
    }
    const float* weights(size_t i0, size_t, std::vector<float>&)
            const override {
        return w_ ? w_ + i0 : nullptr;
    }

   private:
    const faiss::Index& codec_;
    const uint8_t* codes_;
    size_t block_;
    const float* w_;
};

class SubsetSource : public VectorSource {
   public:
    SubsetSource(
            std::unique_ptr<VectorSource> base,
            std::vector<int64_t> row_numbers)
            : VectorSource(row_numbers.size(), base->d()),
              base_(std::move(base)),
              row_numbers_(std::move(row_numbers)) {}

    const float* rows(size_t i0, size_t count, std::vector<float>& buffer)
            const override {
        buffer.resize(count * d());
        base_->gather(row_numbers_.data() + i0, count, buffer.data());
        return buffer.data();
    }

    const float* weights(size_t i0, size_t count, std::vector<float>& buffer)
            const override {
        std::vector<float> scratch;
        if (!base_->weights(0, 1, scratch)) {
            return nullptr;
        }
        buffer.resize(count);
        for (size_t i = 0; i < count; i++) {
            buffer[i] = *base_->weights(row_numbers_[i0 + i], 1, scratch);
        }
        return buffer.data();
    }

   private:
    std::unique_ptr<VectorSource> base_;
    std::vector<int64_t> row_numbers_;
};

} // namespace

std::unique_ptr<VectorSource> array_source(
        size_t n,
        size_t d,
        const float* x,
        const float* weights) {
    return std::make_unique<ArraySource>(n, d, x, weights);
}

std::unique_ptr<VectorSource> codec_source(
        size_t n,
        const faiss::Index& codec,
        const uint8_t* codes,
        size_t block,
        const float* weights) {
    return std::make_unique<CodecSource>(n, codec, codes, block, weights);
}

std::unique_ptr<VectorSource> subset_source(
        std::unique_ptr<VectorSource> base,
        std::vector<int64_t> row_numbers) {
    return std::make_unique<SubsetSource>(
            std::move(base), std::move(row_numbers));
}

} // namespace faiss_flash
