#include <datasets/mapped_rows.h>

#include <cstring>

#include <datasets/mapped_file.h>
#include <faiss/impl/FaissAssert.h>

namespace faiss_flash {

namespace {

size_t element_bytes(ElementType element) {
    const bool byte =
            element == ElementType::uint8 || element == ElementType::int8;
    return byte ? 1 : 4;
}

/// The formats are little-endian, as are all machines this builds for.
template <typename T>
T load(const uint8_t* at) {
    T value;
    std::memcpy(&value, at, sizeof(value));
    return value;
}

template <typename From, typename To>
void convert(const uint8_t* row, size_t d, To* out) {
    for (size_t j = 0; j < d; j++) {
        out[j] = static_cast<To>(load<From>(row + j * sizeof(From)));
    }
}

/// Rows at a fixed distance in a mapped file.
class MappedRows : public RowStore {
   public:
    MappedRows(const std::string& path, ElementType element)
            : RowStore(path, element),
              file_(path) {}

    /// .fvecs and its kin: [int32 d][components] per row.
    void layout_vecs() {
        const int32_t d = load<int32_t>(header(4));
        FAISS_THROW_IF_NOT_FMT(
                d >= 1,
                "%s: row 0 has dimension %d, must be at least 1",
                name_.c_str(),
                d);
        row_header_ = 4;
        offset_ = 0;
        d_ = static_cast<size_t>(d);
        stride_ = row_header_ + d_ * element_bytes(element_);
        n_ = file_.size() / stride_;
        FAISS_THROW_IF_NOT_FMT(
                file_.size() % stride_ == 0,
                "%s: truncated or of another kind: %zu bytes are not a whole "
                "number of rows of %zu bytes (dimension %zu)",
                name_.c_str(),
                file_.size(),
                stride_,
                d_);
    }

    /// .fbin and its kin: [uint32 n][uint32 d][rows].
    void layout_bin() {
        const uint8_t* start = header(8);
        const uint32_t n = load<uint32_t>(start);
        const uint32_t d = load<uint32_t>(start + 4);
        FAISS_THROW_IF_NOT_FMT(
                n >= 1 && d >= 1,
                "%s: header says %u rows of dimension %u, both must be at "
                "least 1",
                name_.c_str(),
                n,
                d);
        row_header_ = 0;
        offset_ = 8;
        n_ = n;
        d_ = d;
        stride_ = d_ * element_bytes(element_); // < 2^34
        const size_t body = file_.size() - offset_;
        // Divide: n * stride may not fit 64 bits.
        const bool as_said = body % stride_ == 0 && body / stride_ == n_;
        const bool ids_and_distances = element_ == ElementType::integer &&
                body % (2 * stride_) == 0 && body / (2 * stride_) == n_;
        FAISS_THROW_IF_NOT_FMT(
                as_said || ids_and_distances,
                "%s: header says %u rows of %zu bytes (dimension %u), the "
                "file has %zu bytes for them",
                name_.c_str(),
                n,
                stride_,
                d,
                body);
    }

    void read_floats(size_t i0, size_t count, float* out) const override {
        switch (element_) {
            case ElementType::uint8:
                return read_as<uint8_t>(i0, count, out);
            case ElementType::int8:
                return read_as<int8_t>(i0, count, out);
            case ElementType::integer:
                return read_as<int32_t>(i0, count, out);
            default:
                return read_as<float>(i0, count, out);
        }
    }

    void read_ints(size_t i0, size_t count, int64_t* out) const override {
        FAISS_THROW_IF_NOT_FMT(
                element_ == ElementType::integer,
                "%s: does not hold 32-bit integers",
                name_.c_str());
        read_as<int32_t>(i0, count, out);
    }

   private:
    const uint8_t* header(size_t bytes) const {
        FAISS_THROW_IF_NOT_FMT(
                file_.size() >= bytes,
                "%s: truncated: %zu bytes, the header alone takes %zu",
                name_.c_str(),
                file_.size(),
                bytes);
        return file_.bytes(0, bytes);
    }

    template <typename From, typename To>
    void read_as(size_t i0, size_t count, To* out) const {
        const uint8_t* row =
                file_.bytes(offset_ + i0 * stride_, count * stride_);
        for (size_t i = 0; i < count; i++, row += stride_, out += d_) {
            if (row_header_) {
                const int32_t d = load<int32_t>(row);
                FAISS_THROW_IF_NOT_FMT(
                        d >= 0 && static_cast<size_t>(d) == d_,
                        "%s: row %zu has dimension %d, row 0 has %zu",
                        name_.c_str(),
                        i0 + i,
                        d,
                        d_);
            }
            convert<From>(row + row_header_, d_, out);
        }
    }

    MappedFile file_;
    size_t offset_ = 0;     // bytes before row 0
    size_t stride_ = 0;     // bytes from one row to the next
    size_t row_header_ = 0; // bytes before a row's first component
};

} // namespace

std::shared_ptr<const RowStore> open_vecs_rows(
        const std::string& path,
        ElementType element) {
    auto rows = std::make_shared<MappedRows>(path, element);
    rows->layout_vecs();
    return rows;
}

std::shared_ptr<const RowStore> open_bin_rows(
        const std::string& path,
        ElementType element) {
    auto rows = std::make_shared<MappedRows>(path, element);
    rows->layout_bin();
    return rows;
}

} // namespace faiss_flash
