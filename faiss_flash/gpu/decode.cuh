#pragma once

// Codes to vectors, four components at a time.

#include <cuda_fp16.h>

#include <faiss_flash/gpu/lists_view.h>

namespace faiss_flash {

/// Components dim to dim + 3 of a row of d; 0 beyond.
__device__ inline float4 load4(const float* row, int dim, int d, bool quads) {
    if (quads) {
        return dim < d ? *reinterpret_cast<const float4*>(row + dim)
                       : make_float4(0, 0, 0, 0);
    }
    return make_float4(
            dim < d ? row[dim] : 0.0f,
            dim + 1 < d ? row[dim + 1] : 0.0f,
            dim + 2 < d ? row[dim + 2] : 0.0f,
            dim + 3 < d ? row[dim + 3] : 0.0f);
}

/// `bits` ≤ 16 bits of a code, from bit `first` on.
__device__ inline uint32_t read_bits(
        const uint8_t* code,
        int code_size,
        int first,
        int bits) {
    const int byte = first / 8;
    uint32_t word = code[byte];
    word |= byte + 1 < code_size ? (uint32_t)code[byte + 1] << 8 : 0;
    word |= byte + 2 < code_size ? (uint32_t)code[byte + 2] << 16 : 0;
    return (word >> (first % 8)) & ((1u << bits) - 1);
}

__device__ inline float from_half(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

__device__ inline float from_bfloat16(uint16_t bits) {
    return __uint_as_float((uint32_t)bits << 16);
}

/// Four components of a code, as they are stored.
template <CodeKind kind>
struct Packed {
    using Type = float4; ///< fp32; pq: of the codebook
};
template <>
struct Packed<CodeKind::fp16> {
    using Type = uint2;
};
template <>
struct Packed<CodeKind::bf16> {
    using Type = uint2;
};
template <>
struct Packed<CodeKind::sq8> {
    using Type = uint32_t;
};
template <>
struct Packed<CodeKind::sq6> {
    using Type = uint32_t;
};
template <>
struct Packed<CodeKind::sq4> {
    using Type = uint32_t;
};

/** Components dim to dim + 3 of the vectors of one list, in two steps: reading
 * has the memory's latency, unpack() the arithmetic. What depends on the list
 * and the components alone is read once.
 */
template <CodeKind kind>
class Decoder {
   public:
    using Type = typename Packed<kind>::Type;

    __device__ Decoder(const ListsView& lists, int list, int dim)
            : lists_(&lists), dim_(dim) {
        const bool quads = lists.d % 4 == 0;
        if (lists.centroids) {
            centroid_ = load4(
                    lists.centroids + (int64_t)list * lists.d, dim, lists.d, quads);
        }
        if (is_sq) {
            offset_ = load4(lists.offset, dim, lists.d, quads);
            scale_ = load4(lists.scale, dim, lists.d, quads);
        }
    }

    /// Where lists.quads; zeros from dimension d on.
    __device__ Type read_quad(const uint8_t* code) const {
        if (dim_ >= lists_->d) {
            return Type{};
        }
        if constexpr (kind == CodeKind::pq8) {
            return read_pq8(code);
        } else if constexpr (kind == CodeKind::sq6) {
            const uint8_t* at = code + dim_ / 4 * 3;
            return at[0] | at[1] << 8 | at[2] << 16;
        } else if constexpr (kind == CodeKind::sq4) {
            return reinterpret_cast<const uint16_t*>(code)[dim_ / 4];
        } else if constexpr (kind == CodeKind::pq) {
            return Type{}; // has no quads
        } else {
            return reinterpret_cast<const Type*>(code)[dim_ / 4];
        }
    }

    /// Anywhere; zeros from dimension d on.
    __device__ Type read_each(const uint8_t* code) const {
        if constexpr (is_sq) {
            uint32_t word = 0;
            for (int i = 0; i < 4 && dim_ + i < lists_->d; i++) {
                word |= read_bits(
                                code,
                                lists_->code_size,
                                (dim_ + i) * sq_bits,
                                sq_bits)
                        << (i * sq_bits);
            }
            return word;
        } else if constexpr (is_16_bits) {
            const auto* words = reinterpret_cast<const uint16_t*>(code) + dim_;
            const int left = lists_->d - dim_;
            return make_uint2(
                    (left > 0 ? words[0] : 0) |
                            (left > 1 ? (uint32_t)words[1] << 16 : 0),
                    (left > 2 ? words[2] : 0) |
                            (left > 3 ? (uint32_t)words[3] << 16 : 0));
        } else {
            return make_float4(
                    read_float(code, dim_),
                    read_float(code, dim_ + 1),
                    read_float(code, dim_ + 2),
                    read_float(code, dim_ + 3));
        }
    }

    __device__ float4 unpack(Type v) const {
        if constexpr (is_sq) {
            constexpr uint32_t mask = (1u << sq_bits) - 1;
            return sum(
                    make_float4(
                            fmaf((float)(v & mask), scale_.x, offset_.x),
                            fmaf((float)(v >> sq_bits & mask),
                                 scale_.y,
                                 offset_.y),
                            fmaf((float)(v >> (2 * sq_bits) & mask),
                                 scale_.z,
                                 offset_.z),
                            fmaf((float)(v >> (3 * sq_bits) & mask),
                                 scale_.w,
                                 offset_.w)),
                    centroid_);
        } else if constexpr (is_16_bits) {
            return sum(
                    make_float4(
                            wide(v.x),
                            wide(v.x >> 16),
                            wide(v.y),
                            wide(v.y >> 16)),
                    centroid_);
        } else {
            return sum(v, centroid_);
        }
    }

   private:
    static constexpr bool is_sq = kind == CodeKind::sq8 ||
            kind == CodeKind::sq6 || kind == CodeKind::sq4;
    static constexpr bool is_16_bits =
            kind == CodeKind::fp16 || kind == CodeKind::bf16;
    static constexpr int sq_bits = kind == CodeKind::sq8 ? 8
            : kind == CodeKind::sq6                       ? 6
                                                          : 4;

    /// Four components are of one subspace, of two, or of up to four.
    __device__ float4 read_pq8(const uint8_t* code) const {
        const int dsub = lists_->pq_dsub;
        int m = dim_ / dsub;
        int within = dim_ - m * dsub;
        const float* entry = pq8_entry(code, m) + within;
        if (dsub % 4 == 0) {
            return *reinterpret_cast<const float4*>(entry);
        }
        if (dsub % 2 == 0) {
            const float2 one = *reinterpret_cast<const float2*>(entry);
            entry = within + 2 < dsub ? entry + 2 : pq8_entry(code, m + 1);
            const float2 other = *reinterpret_cast<const float2*>(entry);
            return make_float4(one.x, one.y, other.x, other.y);
        }
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (within == dsub) {
                within = 0;
                entry = pq8_entry(code, ++m);
            }
            v[i] = *entry++;
            within++;
        }
        return make_float4(v[0], v[1], v[2], v[3]);
    }

    __device__ const float* pq8_entry(const uint8_t* code, int m) const {
        return lists_->codebook + (m * 256 + code[m]) * lists_->pq_dsub;
    }

    __device__ float read_float(const uint8_t* code, int dim) const {
        if (dim >= lists_->d) {
            return 0;
        }
        if constexpr (kind == CodeKind::fp32) {
            return reinterpret_cast<const float*>(code)[dim];
        } else {
            const int bits = kind == CodeKind::pq8 ? 8 : lists_->pq_bits;
            const int m = dim / lists_->pq_dsub;
            const int word = read_bits(code, lists_->code_size, m * bits, bits);
            return lists_->codebook
                    [((int64_t)(m << bits) + word) * lists_->pq_dsub + dim -
                     m * lists_->pq_dsub];
        }
    }

    __device__ static float wide(uint32_t bits) {
        return kind == CodeKind::fp16 ? from_half((uint16_t)bits)
                                      : from_bfloat16((uint16_t)bits);
    }

    __device__ static float4 sum(float4 a, float4 b) {
        return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
    }

    const ListsView* lists_;
    int dim_;
    float4 centroid_ = make_float4(0, 0, 0, 0);
    float4 offset_ = make_float4(0, 0, 0, 0);
    float4 scale_ = make_float4(0, 0, 0, 0);
};

} // namespace faiss_flash
