#include <faiss_flash/trainer/statistics.h>

#include <algorithm>
#include <utility>

namespace faiss_flash {

void Statistics::resize(size_t k, size_t d, size_t energies) {
    Statistics empty;
    // memory is kept: a pass on a device may take no longer than getting it
    empty.sums.swap(sums);
    empty.counts.swap(counts);
    empty.energy.swap(energy);
    empty.members.swap(members);
    *this = std::move(empty);
    sums.resize(k * d);
    counts.resize(k);
    energy.resize(k * energies);
    members.resize(k);
}

void Statistics::reset(size_t k, size_t d, size_t energies) {
    resize(k, d, energies);
    std::fill(sums.begin(), sums.end(), 0);
    std::fill(counts.begin(), counts.end(), 0);
    std::fill(energy.begin(), energy.end(), 0);
    std::fill(members.begin(), members.end(), 0);
}

namespace {

template <class T>
void add_to(std::vector<T>& a, const std::vector<T>& b) {
    for (size_t i = 0; i < a.size(); i++) {
        a[i] += b[i];
    }
}

} // namespace

void Statistics::add(const Statistics& other) {
    add_to(sums, other.sums);
    add_to(counts, other.counts);
    add_to(energy, other.energy);
    add_to(members, other.members);
    n += other.n;
    total_weight += other.total_weight;
    objective += other.objective;
    log_likelihood += other.log_likelihood;
    entries += other.entries;
    rechecked += other.rechecked;
    dropped_mass = std::max(dropped_mass, other.dropped_mass);
}

} // namespace faiss_flash
