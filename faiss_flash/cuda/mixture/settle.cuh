#pragma once

// Lists to exact densities, responsibilities and entries.

#include <faiss_flash/cuda/mixture/prepare.cuh>
#include <faiss_flash/cuda/update.cuh>

namespace faiss_flash {

/// Where a row's entries begin and how many dense rows come before it, in
/// one number, so that one scan gives both.
struct RowPlace {
    static constexpr int dense_shift = 40;
    static constexpr uint64_t entries_mask = (uint64_t(1) << dense_shift) - 1;
};

/// Sums of a pass over rows; added to, never reset here.
struct RowTotals {
    double log_likelihood; ///< Σ w log p(x)
    double weight;         ///< Σ w
    unsigned long long entries;
    float dropped; ///< largest bound on responsibility left out

    /// @param bound  not negative
    __device__ void raise_dropped(float bound) {
        // mostly there is a larger one already
        if (bound > *static_cast<volatile float*>(&dropped)) {
            // not negative: their bits order like integers
            atomicMax(
                    reinterpret_cast<int*>(&dropped), __float_as_int(bound));
        }
    }
};

/// The mixture and rows of one pass, as given; all on the device.
struct MixtureRowsInput {
    int64_t n = 0;
    int64_t block_rows = 0; ///< see UpdatePlan
    int d = 0, k = 0;
    const float* x = nullptr;       ///< (n, d)
    const float* weights = nullptr; ///< (n) or nullptr
    const float* means = nullptr;   ///< (k, d)
    const ComponentTerms* components = nullptr; ///< (k)
    /// 1 / 2σ² of a diagonal mixture, (k, d), or nullptr. Its "distances" are
    /// Σ_j (x_j − μ_kj)² / 2σ²_kj, with a precision of 1.
    const float* half_precisions = nullptr;
    float range = 0;     ///< of the lists
    float most_drop = 0; ///< a row may lose this much of its mass here
    /// and this much because it is not listed, or below the range (soft
    /// passes; otherwise the range sees to that)
    float most_unlisted = 0;

    /// Whether rows and components can be read four columns at a time.
    bool aligned() const {
        return d % 4 == 0 &&
                (reinterpret_cast<uintptr_t>(x) |
                 reinterpret_cast<uintptr_t>(means) |
                 reinterpret_cast<uintptr_t>(half_precisions)) %
                                16 ==
                        0;
    }
};

/// What becomes of a row.
struct MixtureRowsOutput {
    double* log_density = nullptr; ///< log p(x), (n)
    uint32_t* best = nullptr;      ///< largest responsibility, (n)
    unsigned long long* members = nullptr; ///< rows by `best`, (k), or nullptr
    RowTotals* totals = nullptr;   ///< entries and dropped

    /// One thread: of a row whose responsibilities are known.
    __device__ void set_row(int64_t row, double value, uint32_t component)
            const {
        log_density[row] = value;
        best[row] = component;
        if (members) {
            atomicAdd(members + component, 1ull);
        }
    }
};

/** Leave out of the lists what the scores prove to be worth nothing: less
 * than most_drop of a row together.
 *
 * @param limits   their `rise` less `range` is the error of a score
 * @param places   receives the entries of each row, or 1 << dense_shift where
 *                 the list was too short or is empty; 0 at n; (n + 1)
 * @param cut      components below this score are left out; (n)
 * @param dropped  bound on the mass left out of each row so far; (n)
 */
cudaError_t launch_filter_rows(
        int64_t n,
        int k,
        int parts,
        float range,
        float most_drop,
        const ListOutput& lists,
        const RowLimit* limits,
        uint64_t* places,
        float* cut,
        float* dropped,
        cudaStream_t stream);

/// places[i]: what came before row i; in place, (n + 1).
cudaError_t launch_row_places(
        int64_t n,
        uint64_t* places,
        void* temp,
        size_t temp_bytes,
        cudaStream_t stream);
size_t row_places_temp_bytes(int64_t n);

/// A row that counts for a component, by a share of its weight.
struct alignas(16) WeightedRow {
    uint32_t row;
    float weight; ///< r·w
    float dist;   ///< ‖x − μ‖²
    uint32_t unused;
};

/// Entries of a range of rows, in the order of their places.
struct EntryArrays {
    int64_t count = 0;
    WeightedRow* entries = nullptr; ///< (count)
    uint32_t* rows = nullptr;       ///< (count) scratch
    uint32_t* keys = nullptr;       ///< (count)
    float* partial = nullptr;       ///< (distance_slices(k, d), count) scratch
};

/// Rows and keys of the entries of rows [first, first + rows), at their
/// places; keys are components.
cudaError_t launch_make_entries(
        int64_t first,
        int64_t rows,
        int parts,
        const ListOutput& lists,
        const float* cut,
        const uint64_t* places,
        const EntryArrays& arrays,
        cudaStream_t stream);

/// Parts that a distance is computed in: columns of all means that fit in
/// shared memory together.
int distance_slices(int k, int d);

/// ‖x − μ‖² of every entry, its parts in arrays.partial.
cudaError_t launch_distances(
        const MixtureRowsInput& in,
        const EntryArrays& arrays,
        int multiprocessors,
        cudaStream_t stream);

/** Exact densities of the entries of rows [first, first + rows) that
 * launch_make_entries() made: distances in difference form in single
 * precision, log densities in double.
 *
 * @param dropped  see launch_filter_rows()
 * @param arrays   receives entries with weight r·w, 0 for what is dropped
 *                 (less than in.most_drop of a row), and as keys: block of
 *                 the row (from `first` on) · k + component, or blocks · k
 *                 for what is dropped
 */
cudaError_t launch_settle_rows(
        const MixtureRowsInput& in,
        int64_t first,
        int64_t rows,
        const float* dropped,
        const uint64_t* places,
        const EntryArrays& arrays,
        int multiprocessors,
        const MixtureRowsOutput& out,
        cudaStream_t stream);

/// Rows that launch_row_totals() adds up first; divides blocks of rows.
constexpr int row_totals_rows = 1 << 12;
inline int64_t row_totals_blocks(int64_t n) {
    return (n + row_totals_rows - 1) / row_totals_rows;
}

/// Σ w log p and Σ w of rows [0, n), row_totals_rows of them after the other.
/// @param partial  2 doubles per row_totals_blocks(n)
cudaError_t launch_row_totals(
        const MixtureRowsInput& in,
        const double* log_density,
        double* partial,
        RowTotals* totals,
        cudaStream_t stream);

} // namespace faiss_flash
