// Lists or masks of the components that matter, or bests of groups of them,
// with the instructions of sm_80.

#include <algorithm>

#include <faiss_flash/cuda/mixture/list.h>
#include <faiss_flash/cuda/mixture/masks.cuh>
#include <faiss_flash/cuda/tile_sm80.cuh>

namespace faiss_flash {

namespace {

/// f(m, high) for a thread's four rows, see Sm80Lane.
template <class Fn>
__device__ __forceinline__ void for_each_row(Fn&& fn) {
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int high = 0; high < 2; high++) {
            fn(m, high);
        }
    }
}

/// Which of the threads that share a row this one is.
__device__ int part_of(const Sm80Lane& at) {
    return at.warp_column * 4 + at.lane % 4;
}

struct ListEpilogue {
    using Output = ListOutput;
    static constexpr int capacity = list_capacity / list_parts;
    RowList list[2][2];

    __device__ void start(const ListInput& in, int64_t first) {
        const Sm80Lane at;
        for_each_row([&](int m, int high) {
            list[m][high].start(in, first + at.row(m, high));
        });
    }

    __device__ void add(
            const ListInput& in,
            const ListOutput& out,
            const float (&acc)[2][8][4],
            int64_t first,
            int tile) {
        const Sm80Lane at;
#pragma unroll
        for (int g = 0; g < 8; g++) {
            const int column = tile * assign_columns + at.column(g, 0);
            // columns are even: two (a, h) pairs are aligned
            const float4 c = __ldg(
                    reinterpret_cast<const float4*>(in.columns + column));
            for_each_row([&](int m, int high) {
                RowList& row = list[m][high];
                const float v0 = row.score(acc[m][g][2 * high], c.x, c.y);
                const float v1 = row.score(acc[m][g][2 * high + 1], c.z, c.w);
                if (row.reached(v0) || row.reached(v1)) {
                    Listed* to = out.listed +
                            (first + at.row(m, high)) * list_capacity +
                            part_of(at) * capacity;
                    row.offer<capacity>(v0, column, to);
                    row.offer<capacity>(v1, column + 1, to);
                }
            });
        }
        for_each_row([&](int m, int high) {
            list[m][high].give_up_beyond(capacity);
        });
    }

    __device__ void finish(
            const ListInput& in,
            const ListOutput& out,
            int64_t first) {
        const Sm80Lane at;
        for_each_row([&](int m, int high) {
            const int64_t r = first + at.row(m, high);
            if (r < in.n) {
                out.counts[r * list_parts + part_of(at)] =
                        list[m][high].final_count(capacity);
            }
        });
    }
};

struct GroupEpilogue {
    using Output = GroupOutput;
    float norm2[2][2], best[2][2];
    int slot; ///< that `best` belongs to

    __device__ void start(const ListInput& in, int64_t first) {
        const Sm80Lane at;
        slot = 0;
        for_each_row([&](int m, int high) {
            const int64_t r = first + at.row(m, high);
            norm2[m][high] = r < in.n ? in.limits[r].norm2 : 0;
            best[m][high] = -INFINITY;
        });
    }

    __device__ void add(
            const ListInput& in,
            const GroupOutput& out,
            const float (&acc)[2][8][4],
            int64_t first,
            int tile) {
        const Sm80Lane at;
        const int first_slot = in.groups.first_slot(tile);
#pragma unroll
        for (int g = 0; g < 8; g++) {
            const int next = first_slot + in.groups.slot_within(g, 3);
            if (next != slot) {
                finish(in, out, first);
                slot = next;
            }
            const int column = tile * assign_columns + at.column(g, 0);
            const float4 c = __ldg(
                    reinterpret_cast<const float4*>(in.columns + column));
            for_each_row([&](int m, int high) {
                const float shift = -norm2[m][high];
                const float* pair = &acc[m][g][2 * high];
                const float v0 = fmaf(c.y, fmaf(2, pair[0], shift), c.x);
                const float v1 = fmaf(c.w, fmaf(2, pair[1], shift), c.z);
                best[m][high] = fmaxf(best[m][high], fmaxf(v0, v1));
            });
        }
    }

    /// Also between groups.
    __device__ void finish(
            const ListInput& in,
            const GroupOutput& out,
            int64_t first) {
        const Sm80Lane at;
        for_each_row([&](int m, int high) {
            const int64_t r = first + at.row(m, high);
            if (r < in.n) {
                out.best[r * list_groups_per_row + slot * list_parts +
                         part_of(at)] = best[m][high];
            }
            best[m][high] = -INFINITY;
        });
    }
};

/// Half of a word's bits per row and tile, and a part of its near ones: added
/// to what is zero at first.
struct MaskEpilogue {
    using Output = MaskOutput;
    float norm2[2][2];
    MaskScale scale[2][2];
    uint32_t near[2][2];

    __device__ void start(const ListInput& in, int64_t first) {
        const Sm80Lane at;
        for_each_row([&](int m, int high) {
            const int64_t r = first + at.row(m, high);
            const RowLimit limit = r < in.n ? in.limits[r] : RowLimit{0, 0, 0};
            norm2[m][high] = limit.norm2;
            scale[m][high] = MaskScale::of(limit.threshold);
            near[m][high] = 0;
        });
    }

    __device__ void add(
            const ListInput& in,
            const MaskOutput& out,
            const float (&acc)[2][8][4],
            int64_t first,
            int tile) {
        const Sm80Lane at;
        uint32_t bits[2][2] = {};
#pragma unroll
        for (int g = 0; g < 8; g++) {
            const int column = tile * assign_columns + at.column(g, 0);
            const float4 c = __ldg(
                    reinterpret_cast<const float4*>(in.columns + column));
            for_each_row([&](int m, int high) {
                const float shift = -norm2[m][high];
                const float* pair = &acc[m][g][2 * high];
                const float v0 = fmaf(c.y, fmaf(2, pair[0], shift), c.x);
                const float v1 = fmaf(c.w, fmaf(2, pair[1], shift), c.z);
                const MaskScale& row = scale[m][high];
                uint32_t& to = bits[m][high];
                to = row.push(row.push(to, v0), v1);
            });
        }
        for_each_row([&](int m, int high) {
            const int64_t r = first + at.row(m, high);
            if (r < in.n) {
                const int64_t word = r * out.words + tile * mask_tile_words +
                        at.lane % 4;
                // the first columns have the even bits
                atomicOr(
                        out.masks + word,
                        MaskScale::listed(bits[m][high]) << at.warp_column);
            }
            near[m][high] += __popc(MaskScale::near(bits[m][high]));
        });
    }

    __device__ void finish(
            const ListInput& in,
            const MaskOutput& out,
            int64_t first) {
        const Sm80Lane at;
        for_each_row([&](int m, int high) {
            const int64_t r = first + at.row(m, high);
            uint32_t sum = near[m][high];
            sum += __shfl_xor_sync(0xffffffff, sum, 1);
            sum += __shfl_xor_sync(0xffffffff, sum, 2);
            if (at.lane % 4 == 0 && r < in.n) {
                atomicAdd(out.near + r, sum);
            }
        });
    }
};

template <class Epilogue>
__global__ void __launch_bounds__(sm80_threads) list_sm80_kernel(
        const ListInput in,
        const typename Epilogue::Output out) {
    __shared__ sm80::Stage stage[sm80::stages];
    PreparedCentroids means;
    means.k_padded = in.k_padded;
    means.halves = in.means;
    const int64_t blocks = (in.n + sm80_rows - 1) / sm80_rows;
    for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
        const int64_t first = block * sm80_rows;
        Epilogue epilogue;
        epilogue.start(in, first);
        for_each_tile_sm80(
                stage,
                means,
                0,
                in.k_padded / assign_columns,
                in.d_padded,
                [&](int r) {
                    return first + r < in.n
                            ? in.rows + (first + r) * in.d_padded
                            : nullptr;
                },
                [&](int tile, float(&acc)[2][8][4], const Sm80Lane&) {
                    epilogue.add(in, out, acc, first, tile);
                });
        epilogue.finish(in, out, first);
    }
}

template <class Epilogue>
cudaError_t launch(
        const ListInput& in,
        const typename Epilogue::Output& out,
        cudaStream_t stream) {
    const int64_t blocks = (in.n + sm80_rows - 1) / sm80_rows;
    const int64_t grid = std::min<int64_t>(blocks, 1 << 20);
    list_sm80_kernel<Epilogue><<<grid, sm80_threads, 0, stream>>>(in, out);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch_list_sm80(
        const ListInput& in,
        const ListOutput& out,
        cudaStream_t stream) {
    return launch<ListEpilogue>(in, out, stream);
}

cudaError_t launch_list_sm80(
        const ListInput& in,
        const GroupOutput& out,
        cudaStream_t stream) {
    return launch<GroupEpilogue>(in, out, stream);
}

cudaError_t launch_list_sm80(
        const ListInput& in,
        const MaskOutput& out,
        cudaStream_t stream) {
    cudaError_t error = cudaMemsetAsync(
            out.masks, 0, in.n * out.words * sizeof(uint32_t), stream);
    if (error == cudaSuccess) {
        error = cudaMemsetAsync(
                out.near, 0, in.n * sizeof(uint32_t), stream);
    }
    return error != cudaSuccess ? error
                                : launch<MaskEpilogue>(in, out, stream);
}

} // namespace faiss_flash
