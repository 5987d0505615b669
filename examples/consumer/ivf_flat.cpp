// An IVF-Flat program in which one class name is swapped. Both indexes index
// the same vectors; the program prints recall@10 against the distances each
// one computed.

#include <faiss/IndexFlat.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss_flash/IndexIVFFlash.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

using faiss_flash::idx_t;

constexpr int d = 32, nlist = 64, k = 10;
constexpr idx_t nb = 20000, nq = 500;

/// Overlapping clusters: noise twice as wide as the spread of their centres.
std::vector<float> make_vectors(idx_t n, unsigned seed) {
    std::mt19937 centre_rng(1), rng(seed);
    std::normal_distribution<float> normal;
    std::vector<float> centres(200 * d), x(n * d);
    for (float& value : centres) {
        value = normal(centre_rng);
    }
    for (idx_t i = 0; i < n; i++) {
        const float* centre = &centres[rng() % 200 * d];
        for (int j = 0; j < d; j++) {
            x[i * d + j] = centre[j] + 2 * normal(rng);
        }
    }
    return x;
}

double recall(
        const std::vector<idx_t>& found,
        const std::vector<idx_t>& truth) {
    size_t hits = 0;
    for (idx_t q = 0; q < nq; q++) {
        for (int i = 0; i < k; i++) {
            hits += std::count(
                    &truth[q * k], &truth[q * k] + k, found[q * k + i]);
        }
    }
    return double(hits) / (nq * k);
}

/// Distances to stored vectors that the searches since the last call needed.
size_t take_distances(faiss::IndexIVFFlat&) {
    size_t distances = faiss::indexIVF_stats.ndis;
    faiss::indexIVF_stats.reset();
    return distances;
}
size_t take_distances(faiss_flash::IndexIVFFlatFlash& index) {
    size_t distances = index.counters.distances;
    index.counters.reset();
    return distances;
}

/// The program as it was, with the class as a parameter.
/// @return recall when every list is probed
template <class IVFFlat>
double run(
        const char* name,
        const std::vector<float>& xb,
        const std::vector<float>& xq,
        const std::vector<idx_t>& truth) {
    faiss::IndexFlatL2 quantizer(d);
    IVFFlat index(&quantizer, d, nlist);
    index.train(nb, xb.data());
    index.add(nb, xb.data());

    std::vector<float> distances(nq * k);
    std::vector<idx_t> labels(nq * k);
    take_distances(index);
    for (size_t nprobe : {2, 4, 8, 16, 32, nlist}) {
        index.nprobe = nprobe;
        index.search(nq, xq.data(), k, distances.data(), labels.data());
        std::printf(
                "%-32s nprobe %2zu  recall@10 %.3f  distances per query %.0f\n",
                name,
                nprobe,
                recall(labels, truth),
                double(take_distances(index)) / nq);
    }
    return recall(labels, truth);
}

int main() {
    const auto xb = make_vectors(nb, 2), xq = make_vectors(nq, 3);

    faiss::IndexFlatL2 exact(d);
    exact.add(nb, xb.data());
    std::vector<float> distances(nq * k);
    std::vector<idx_t> truth(nq * k);
    exact.search(nq, xq.data(), k, distances.data(), truth.data());

    const double stock =
            run<faiss::IndexIVFFlat>("faiss::IndexIVFFlat", xb, xq, truth);
    const double flash = run<faiss_flash::IndexIVFFlatFlash>(
            "faiss_flash::IndexIVFFlatFlash", xb, xq, truth);

    // Every list probed is an exact search; ties may swap neighbours.
    if (stock < 0.999 || flash < 0.999) {
        std::fprintf(stderr, "an exhaustive search misses neighbours\n");
        return 1;
    }
    return 0;
}
