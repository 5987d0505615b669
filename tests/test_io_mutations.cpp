// Files whose checksum is right and whose content is anything: reading them
// gives an index that can be used, or an exception, and takes no more memory
// than their size explains.

#include <tests/counted_memory.h>
#include <tests/index_file_util.h>

#include <unistd.h>

#include <cstring>
#include <limits>

#include <faiss/IVFlib.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexRefine.h>
#include <faiss/invlists/OnDiskInvertedLists.h>

#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/io/sealed_file.h>
#include <faiss_flash/ivf/index_factory.h>

using namespace faiss_flash;
using namespace test;

namespace {

constexpr int d = 8;
constexpr size_t nb = 300;

struct Parts {
    std::string faiss, payload;
};

Parts parts_of(const faiss::Index& index, const std::string& path) {
    faiss_flash::write_index(&index, path.c_str());
    SealedReader reader(path);
    Parts parts{std::string(reader.faiss_bytes(), 0), reader.payload()};
    reader(&parts.faiss[0], 1, parts.faiss.size());
    return parts;
}

void seal(const std::string& path, const Parts& parts) {
    SealedWriter writer(path);
    writer(parts.faiss.data(), 1, parts.faiss.size());
    writer.commit(parts.payload);
}

std::unique_ptr<faiss::Index> filled(const std::string& description) {
    std::unique_ptr<faiss::Index> index(
            faiss_flash::index_factory(d, description.c_str()));
    const std::vector<float> x = clustered(nb, d, 1);
    index->train(nb, x.data());
    index->add(nb, x.data());
    return index;
}

/// Every kind of file, small.
std::vector<Parts> all_kinds(const Folder& folder) {
    std::vector<Parts> kinds;
    auto take = [&](const faiss::Index& index) {
        kinds.push_back(parts_of(index, folder.file()));
    };
    for (const char* description :
         {"IVF8(kmeans,top=2),Flat",
          "IVF8(gmm,tau=1/K,em_niter=3,covariance=diag),PQ2x4",
          "IVF8(kmeans,air),SQ8",
          "IVF8(kmeans,nearest),SQfp16",
          "IVF8_HNSW4(kmeans,top=2),Flat",
          "IVF8(IVF2,Flat)(kmeans,top=2),SQ8",
          "PCA4,IVF8(kmeans,top=2),SQ4",
          "RR4,L2norm,IVF8(kmeans,top=2),Flat",
          "ITQ,Pad12,IVF8(kmeans,top=2),SQ6",
          "IVF8(kmeans,top=2),SQ8,RFlat",
          "IVF8(kmeans,top=2),Flat,Refine(SQ8)"}) {
        take(*filled(description));
    }
    take(*std::unique_ptr<faiss::Index>(
            faiss_flash::index_factory(d, "IVF40,SQ8"))); // not trained
    // with ids of the caller's
    std::unique_ptr<faiss::Index> map(
            faiss_flash::index_factory(d, "IDMap2,IVF8(kmeans,top=2),Flat"));
    const std::vector<float> x = clustered(nb, d, 1);
    std::vector<idx_t> ids(nb);
    for (size_t i = 0; i < nb; i++) {
        ids[i] = 1000 + 3 * i;
    }
    map->train(nb, x.data());
    map->add_with_ids(nb, x.data(), ids.data());
    take(*map);
    // direct maps
    for (auto type : {faiss::DirectMap::Array, faiss::DirectMap::Hashtable}) {
        const auto index = filled("IVF8(kmeans,nearest),Flat");
        faiss::ivflib::extract_index_ivf(index.get())
                ->set_direct_map_type(type);
        take(*index);
    }
    // lists on disk
    const auto on_disk = filled("IVF8(kmeans,top=2),Flat");
    auto* ivf = faiss::ivflib::extract_index_ivf(on_disk.get());
    faiss::OnDiskInvertedLists lists(
            8, ivf->code_size, folder.file("lists").c_str());
    for (size_t list = 0; list < ivf->nlist; list++) {
        faiss::InvertedLists::ScopedIds ids_of(ivf->invlists, list);
        faiss::InvertedLists::ScopedCodes codes(ivf->invlists, list);
        lists.add_entries(
                list,
                ivf->invlists->list_size(list),
                ids_of.get(),
                codes.get());
    }
    ivf->replace_invlists(&lists, false);
    take(*on_disk);
    // a quantizer of ours
    MixtureQuantizer mixture(d, 8);
    mixture.gmm.em_niter = 3;
    IndexIVFFlatFlash with_mixture(&mixture, d, 8);
    train_briefly(with_mixture);
    with_mixture.train(nb, x.data());
    with_mixture.add(nb, x.data());
    take(with_mixture);
    return kinds;
}

/// Whatever one does with an index that was read.
void use(faiss::Index& index) {
    const std::vector<float> xq = clustered(2, index.d, 2);
    if (index.d > 1000) {
        return;
    }
    auto attempt = [](const std::function<void()>& fn) {
        try {
            fn();
        } catch (const faiss::FaissException&) {
        }
    };
    attempt([&] { search(index, xq, 5); });
    attempt([&] {
        faiss::RangeSearchResult found(2);
        index.range_search(2, xq.data(), 10, &found);
    });
    attempt([&] {
        std::vector<float> row(index.d);
        index.reconstruct(3, row.data());
    });
    attempt([&] {
        const std::vector<idx_t> ids = {7, 8};
        index.add_with_ids(2, xq.data(), ids.data());
    });
    attempt([&] { index.add(2, xq.data()); });
    attempt([&] {
        const faiss::IDSelectorRange some(0, 50);
        index.remove_ids(some);
    });
}

uint64_t hostile_number(std::mt19937_64& rng, uint64_t was) {
    const uint64_t choices[] = {
            0,
            1,
            was + 1,
            was - 1,
            was * 2,
            rng() % 100,
            rng() % 100000,
            uint64_t(1) << (rng() % 64),
            (uint64_t(1) << (rng() % 64)) - 1,
            uint64_t(1) << 38,
            (uint64_t(1) << 40) - 1,
            std::numeric_limits<uint64_t>::max() - rng() % 3,
            rng()};
    return choices[rng() % 13];
}

void mutate(std::string& bytes, std::mt19937_64& rng) {
    if (bytes.empty()) {
        return;
    }
    // mostly at the beginning, where the sizes are
    const size_t reach =
            rng() % 2 ? bytes.size() : std::min<size_t>(bytes.size(), 600);
    const size_t at = rng() % reach;
    const size_t width = std::min<size_t>(rng() % 2 ? 8 : 4, bytes.size() - at);
    uint64_t number = 0;
    switch (rng() % 8) {
        case 0:
            bytes[at] ^= 1 << rng() % 8;
            break;
        case 1:
            bytes[at] = rng();
            break;
        case 2:
            bytes.resize(at);
            break;
        case 3:
            bytes.erase(at, rng() % 9);
            break;
        case 4:
            bytes.insert(at, bytes.substr(rng() % bytes.size(), rng() % 17));
            break;
        default:
            memcpy(&number, &bytes[at], width);
            number = hostile_number(rng, number);
            memcpy(&bytes[at], &number, width);
    }
}

} // namespace

TEST_CASE("files of every kind come back", "[sanitize]") {
    Folder folder;
    const std::vector<Parts> kinds = all_kinds(folder);
    for (size_t i = 0; i < kinds.size(); i++) {
        INFO("kind " << i);
        const Parts& parts = kinds[i];
        seal(folder.file("again"), parts);
        const std::unique_ptr<faiss::Index> index(
                faiss_flash::read_index(folder.file("again").c_str()));
        const Parts again = parts_of(*index, folder.file("again"));
        // a hash table has no order
        const auto* ivf = dynamic_cast<faiss::IndexIVF*>(index.get());
        if (ivf && ivf->direct_map.type == faiss::DirectMap::Hashtable) {
            CHECK(again.faiss.size() == parts.faiss.size());
        } else {
            CHECK((again.faiss == parts.faiss));
        }
        CHECK(again.payload == parts.payload);
    }
}

TEST_CASE("mutated files give an index or an exception") {
    // in memory where that can be had: every file is flushed to disk
    const fs::path memory = "/dev/shm";
    Folder folder(
            access(memory.c_str(), W_OK) == 0 ? memory
                                              : fs::temp_directory_path());
    const std::vector<Parts> kinds = all_kinds(folder);
    // FAISS_FLASH_MUTATIONS=rounds[,seed]: that many, from a seed of chance
    int rounds = 2000;
    unsigned seed = 20261120;
    if (const char* asked = std::getenv("FAISS_FLASH_MUTATIONS")) {
        seed = std::random_device()();
        sscanf(asked, "%d,%u", &rounds, &seed);
    }
    INFO("seed " << seed);
    printf("mutations: seed %u\n", seed);
    std::mt19937_64 rng(seed);
    size_t read = 0, refused = 0, most = 0;
    for (int round = 0; round < rounds; round++) {
        Parts parts = kinds[rng() % kinds.size()];
        for (int n = rng() % 3; n >= 0; n--) {
            mutate(rng() % 8 ? parts.faiss : parts.payload, rng);
        }
        const std::string path = folder.file("mutated");
        seal(path, parts);
        const size_t bytes = fs::file_size(path);
        const size_t before = live_bytes;
        // what FAISS's empty lists may take, and what reading buffers
        const size_t allowed = (52 << 20) + 80 * bytes;
        peak_bytes = before;
        most_bytes = 2 * allowed;
        std::unique_ptr<faiss::Index> index;
        try {
            index.reset(faiss_flash::read_index(path.c_str()));
        } catch (const faiss::FaissException&) {
        }
        const size_t peak = peak_bytes - before;
        INFO("round " << round);
        CHECK(peak <= allowed);
        most = std::max(most, peak);
        (index ? read : refused)++;
        if (index) {
            use(*index);
        }
        most_bytes = 0;
    }
    printf("mutations: %zu read, %zu refused, at most %zu KiB allocated\n",
           read,
           refused,
           most >> 10);
    CHECK(read > 0);
    CHECK(refused > 0);
}
