#include <faiss_flash/trainer/statistics.h>

#include <algorithm>

namespace faiss_flash {

void Statistics::reset(size_t k, size_t d, size_t energies) {
    *this = Statistics();
    sums.assign(k * d, 0);
    counts.assign(k, 0);
    energy.assign(k * energies, 0);
    members.assign(k, 0);
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
