// IVF-PQ: vectors compressed to 8 bytes in posting lists, saved to a file and
// opened again; prints how often the nearest neighbor is among the results.
//   usage: PROGRAM FILE

#include <faiss/IndexFlat.h>
#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/flash_index_io.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s FILE\n", argv[0]);
        return 2;
    }
    const int d = 64, nlist = 32, m = 8, nbits = 8, k = 10;
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
    faiss_flash::IndexIVFPQFlash trained(&quantizer, d, nlist, m, nbits);
    trained.train(nb, xb.data());
    trained.add(nb, xb.data());
    faiss_flash::write_index(&trained, argv[1]);

    std::unique_ptr<faiss::Index> index(faiss_flash::read_index(argv[1]));
    std::printf("ntotal = %ld\n", (long)index->ntotal);

    faiss::IndexFlatL2 exact(d);
    exact.add(nb, xb.data());
    std::vector<float> distances(nq * k);
    std::vector<int64_t> labels(nq * k), truth(nq);
    exact.search(nq, xq.data(), 1, distances.data(), truth.data());
    for (size_t nprobe : {1, 4, 16, nlist}) {
        faiss::SearchParametersIVF params;
        params.nprobe = nprobe;
        index->search(
                nq, xq.data(), k, distances.data(), labels.data(), &params);
        int64_t found = 0;
        for (int64_t i = 0; i < nq; i++) {
            found += std::count(&labels[i * k], &labels[i * k] + k, truth[i]);
        }
        std::printf("nprobe %3zu: recall %.3f\n", nprobe, (double)found / nq);
        if (nprobe == nlist && found < nq / 2) {
            std::printf("too many neighbors are missing\n");
            return 1;
        }
    }
}
