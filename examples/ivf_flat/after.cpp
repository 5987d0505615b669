// IVF-Flat: full vectors in posting lists. Indexes random vectors, finds the
// neighbors of a few of them and of new ones, and prints the recall.

#include <faiss/IndexFlat.h>
#include <faiss_flash/IndexIVFFlash.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

int main() {
    const int d = 64, nlist = 50, k = 4;
    const int64_t nb = 8000, nq = 500;

    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<float> xb(nb * d), xq(nq * d);
    for (int64_t i = 0; i < nb * d; i++) {
        xb[i] = normal(rng) / (1 + i % d); // few dimensions matter most
    }
    for (int64_t i = 0; i < nq * d; i++) {
        xq[i] = normal(rng) / (1 + i % d);
    }

    faiss::IndexFlatL2 quantizer(d);
    faiss_flash::IndexIVFFlatFlash index(&quantizer, d, nlist);
    index.train(nb, xb.data());
    index.add(nb, xb.data());
    std::printf("ntotal = %ld\n", (long)index.ntotal);

    std::vector<float> distances(nq * k);
    std::vector<int64_t> labels(nq * k);
    index.search(5, xb.data(), k, distances.data(), labels.data());
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < k; j++) {
            std::printf(
                    "%6ld (%.3f)",
                    (long)labels[i * k + j],
                    distances[i * k + j]);
        }
        std::printf("\n");
        if (labels[i * k] != i || distances[i * k] != 0) {
            std::printf("vector %d is not its own nearest neighbor\n", i);
            return 1;
        }
    }

    faiss::IndexFlatL2 exact(d);
    exact.add(nb, xb.data());
    std::vector<int64_t> truth(nq);
    exact.search(nq, xq.data(), 1, distances.data(), truth.data());
    for (size_t nprobe : {1, 4, 16, nlist}) {
        index.nprobe = nprobe;
        index.search(nq, xq.data(), k, distances.data(), labels.data());
        int64_t found = 0;
        for (int64_t i = 0; i < nq; i++) {
            found += std::count(&labels[i * k], &labels[i * k] + k, truth[i]);
        }
        std::printf("nprobe %3zu: recall %.3f\n", nprobe, (double)found / nq);
        if (nprobe == nlist && found < nq) {
            std::printf("neighbors are missing from all lists\n");
            return 1;
        }
    }
}
