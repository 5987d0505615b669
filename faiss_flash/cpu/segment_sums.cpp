#include <faiss_flash/cpu/segment_sums.h>

#include <faiss_flash/cpu/kernels.h>

namespace faiss_flash {

void SegmentSums::add(
        const std::vector<std::vector<Share>>& blocks,
        size_t n_blocks,
        const float* x,
        const Model& model,
        Statistics& out) {
    const size_t k = model.k, d = model.d;
    const bool per_dimension = out.energy.size() > k;
    starts_.assign(k + 1, 0);
    for (size_t b = 0; b < n_blocks; b++) {
        for (const Share& share : blocks[b]) {
            starts_[share.component + 1]++;
        }
    }
    for (size_t c = 0; c < k; c++) {
        starts_[c + 1] += starts_[c];
    }
    sorted_.resize(starts_[k]);
    std::vector<size_t> next(starts_.begin(), starts_.end() - 1);
    for (size_t b = 0; b < n_blocks; b++) {
        for (const Share& share : blocks[b]) {
            sorted_[next[share.component]++] = share;
        }
    }

#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t c = 0; c < (int64_t)k; c++) {
        double count = 0, energy = 0;
        double* sums = out.sums.data() + c * d;
        const float* mean = model.means.data() + c * d;
        for (size_t e = starts_[c]; e < starts_[c + 1]; e++) {
            const Share& share = sorted_[e];
            count += share.weight;
            const float* row = x + share.row * d;
            add_weighted(row, share.weight, d, sums);
            if (per_dimension) {
                double* squares = out.energy.data() + c * d;
                add_weighted_squares(row, mean, share.weight, d, squares);
            } else {
                energy += (double)share.weight * share.dist;
            }
        }
        out.counts[c] += count;
        if (!per_dimension) {
            out.energy[c] += energy;
        }
    }
    out.entries += sorted_.size();
}

} // namespace faiss_flash
