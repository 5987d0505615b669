#include <faiss_flash/cpu/segment_sums.h>

#include <faiss_flash/cpu/kernels.h>

namespace faiss_flash {

void SegmentSums::add(
        const std::vector<std::vector<Share>>& blocks,
        size_t n_blocks,
        const float* x,
        size_t k,
        size_t d,
        Statistics& out) {
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
        for (size_t e = starts_[c]; e < starts_[c + 1]; e++) {
            const Share& share = sorted_[e];
            count += share.weight;
            energy += (double)share.weight * share.dist;
            add_weighted(x + share.row * d, share.weight, d, sums);
        }
        out.counts[c] += count;
        out.energy[c] += energy;
    }
    out.entries += sorted_.size();
}

} // namespace faiss_flash
