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

/** Four components of the vectors of one list: (centroid +) decoded code.
 * What depends on the list and the components alone is read once.
 */
template <CodeKind kind>
class Decoder {
   public:
    __device__ Decoder(const ListsView& lists, int64_t list, int dim)
            : lists_(lists), dim_(dim) {
        const bool quads = lists.d % 4 == 0;
        if (lists.centroids) {
            base_ = load4(
                    lists.centroids + list * lists.d, dim, lists.d, quads);
        }
        if (is_sq) {
            const float4 offset = load4(lists.offset, dim, lists.d, quads);
            base_.x += offset.x;
            base_.y += offset.y;
            base_.z += offset.z;
            base_.w += offset.w;
            scale_ = load4(lists.scale, dim, lists.d, quads);
        }
    }

    __device__ float4 operator()(const uint8_t* code) const {
        if (dim_ >= lists_.d) {
            return make_float4(0, 0, 0, 0);
        }
        const float4 v = lists_.quads ? read4(code)
                                      : make_float4(
                                                read1(code, dim_),
                                                read1(code, dim_ + 1),
                                                read1(code, dim_ + 2),
                                                read1(code, dim_ + 3));
        return make_float4(
                fmaf(v.x, scale_.x, base_.x),
                fmaf(v.y, scale_.y, base_.y),
                fmaf(v.z, scale_.z, base_.z),
                fmaf(v.w, scale_.w, base_.w));
    }

   private:
    static constexpr bool is_sq = kind == CodeKind::sq8 ||
            kind == CodeKind::sq6 || kind == CodeKind::sq4;
    static constexpr int sq_bits = kind == CodeKind::sq8 ? 8
            : kind == CodeKind::sq6                       ? 6
                                                          : 4;

    __device__ float4 read4(const uint8_t* code) const {
        if constexpr (kind == CodeKind::fp32) {
            return reinterpret_cast<const float4*>(code)[dim_ / 4];
        } else if constexpr (
                kind == CodeKind::fp16 || kind == CodeKind::bf16) {
            const ushort4 v = reinterpret_cast<const ushort4*>(code)[dim_ / 4];
            return make_float4(wide(v.x), wide(v.y), wide(v.z), wide(v.w));
        } else if constexpr (is_sq) {
            uint32_t word;
            if constexpr (sq_bits == 8) {
                word = reinterpret_cast<const uint32_t*>(code)[dim_ / 4];
            } else if constexpr (sq_bits == 4) {
                word = reinterpret_cast<const uint16_t*>(code)[dim_ / 4];
            } else {
                const uint8_t* at = code + dim_ / 4 * 3;
                word = at[0] | at[1] << 8 | at[2] << 16;
            }
            constexpr uint32_t mask = (1u << sq_bits) - 1;
            return make_float4(
                    (float)(word & mask),
                    (float)(word >> sq_bits & mask),
                    (float)(word >> (2 * sq_bits) & mask),
                    (float)(word >> (3 * sq_bits) & mask));
        } else if constexpr (kind == CodeKind::pq8) {
            const int m = dim_ / lists_.pq_dsub;
            const int within = dim_ - m * lists_.pq_dsub;
            return *reinterpret_cast<const float4*>(
                    lists_.codebook +
                    (m * 256 + code[m]) * lists_.pq_dsub + within);
        } else {
            return make_float4(
                    read1(code, dim_),
                    read1(code, dim_ + 1),
                    read1(code, dim_ + 2),
                    read1(code, dim_ + 3));
        }
    }

    __device__ float read1(const uint8_t* code, int dim) const {
        if (dim >= lists_.d) {
            return 0;
        }
        if constexpr (kind == CodeKind::fp32) {
            return reinterpret_cast<const float*>(code)[dim];
        } else if constexpr (
                kind == CodeKind::fp16 || kind == CodeKind::bf16) {
            return wide(reinterpret_cast<const uint16_t*>(code)[dim]);
        } else if constexpr (is_sq) {
            return (float)read_bits(
                    code, lists_.code_size, dim * sq_bits, sq_bits);
        } else {
            const int bits = kind == CodeKind::pq8 ? 8 : lists_.pq_bits;
            const int m = dim / lists_.pq_dsub;
            const int word = read_bits(code, lists_.code_size, m * bits, bits);
            return lists_.codebook
                    [((int64_t)(m << bits) + word) * lists_.pq_dsub + dim -
                     m * lists_.pq_dsub];
        }
    }

    __device__ static float wide(uint16_t bits) {
        return kind == CodeKind::fp16 ? from_half(bits) : from_bfloat16(bits);
    }

    const ListsView& lists_;
    int dim_;
    float4 base_ = make_float4(0, 0, 0, 0);
    float4 scale_ = make_float4(1, 1, 1, 1);
};

} // namespace faiss_flash
