// Files of indexes: what comes back, what stock FAISS makes of them, and
// everything that can be wrong with one.

#include <tests/index_util.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include <faiss/index_io.h>

#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/flash_index_io.h>
#include <faiss_flash/io/sealed_file.h>

using namespace faiss_flash;
using namespace test;
namespace fs = std::filesystem;

namespace {

const size_t d = 8, nlist = 7, nb = 400;

/// A folder that goes away with the test.
struct Folder {
    std::string path;
    Folder() {
        path = (fs::temp_directory_path() / "flash_io_XXXXXX").string();
        REQUIRE(mkdtemp(&path[0]) != nullptr);
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    std::string file(const std::string& name = "index") const {
        return path + "/" + name;
    }
    size_t count() const {
        return std::distance(
                fs::directory_iterator(path), fs::directory_iterator());
    }
};

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
}

void put_bytes(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// An index with copies, trained as a mixture.
Flash make_index(Codec codec, faiss::Index* quantizer, int seed = 1) {
    const std::vector<float> x = clustered(nb, d, seed);
    Flash flash = make_flash(codec, quantizer, nlist);
    flash.options->policy = AssignmentPolicy::top_m(2);
    flash.options->gmm.em_niter = 5;
    flash->train(nb, x.data());
    flash->add(nb, x.data());
    flash->nprobe = 3;
    return flash;
}

template <class Index>
std::unique_ptr<Index> read_as(const std::string& path) {
    std::unique_ptr<faiss::Index> index(
            faiss_flash::read_index(path.c_str()));
    REQUIRE(dynamic_cast<Index*>(index.get()));
    return std::unique_ptr<Index>(dynamic_cast<Index*>(index.release()));
}

void check_unreadable(
        const std::string& path,
        const std::vector<std::string>& parts = {}) {
    std::vector<std::string> all = parts;
    all.push_back(path);
    check_throws(
            [&] { delete faiss_flash::read_index(path.c_str()); }, all);
}

/// FAISS's part and the payload of a sealed file.
struct Parts {
    std::string stock, payload;
};

Parts written_parts(const faiss::Index& index, const std::string& path) {
    faiss_flash::write_index(&index, path.c_str());
    SealedReader reader(path);
    Parts parts{"", reader.payload()};
    char byte;
    while (reader(&byte, 1, 1) == 1) {
        parts.stock += byte;
    }
    return parts;
}

void seal(const std::string& path, const Parts& parts) {
    SealedWriter writer(path);
    writer(parts.stock.data(), 1, parts.stock.size());
    writer.commit(parts.payload);
}

/// Runs `child` in another process; returns its wait status.
template <class Fn>
int in_child(Fn&& child) {
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        child();
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
}

} // namespace

TEST_CASE("what is written comes back whole", "[sanitize]") {
    const Codec codec =
            GENERATE(Codec::flat, Codec::pq, Codec::sq8, Codec::sq16);
    const auto metric =
            GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
    Folder folder;
    faiss::IndexFlat quantizer(d, metric);
    Flash flash = make_index(codec, &quantizer);
    auto& o = *flash.options;
    o.trainer = Trainer::gmm;
    o.engine = "reference";
    o.gmm.shared_variance = true;
    o.gmm.em_tolerance = 1.0 / 3;
    o.policy.rule = AssignmentRule::closure;
    o.policy.epsilon = 0.1 + 1e-17;
    o.policy.tau = 0.7;
    o.policy.lambda = std::nextafter(1.0, 2.0);
    o.policy.strict = true;
    o.policy.candidates = 5;
    faiss_flash::write_index(flash.ivf.get(), folder.file().c_str());
    CHECK(folder.count() == 1);

    std::unique_ptr<faiss::Index> read(
            faiss_flash::read_index(folder.file().c_str()));
    REQUIRE(typeid(*read) == typeid(*flash.ivf));
    auto& ivf = dynamic_cast<faiss::IndexIVF&>(*read);
    auto& r = dynamic_cast<FlashOptions&>(*read);
    CHECK(r.trainer == o.trainer);
    CHECK(r.engine == o.engine);
    CHECK(r.gmm.em_niter == o.gmm.em_niter);
    CHECK(r.gmm.warm_start_niter == o.gmm.warm_start_niter);
    CHECK(r.gmm.shared_variance == o.gmm.shared_variance);
    CHECK(r.gmm.em_tolerance == o.gmm.em_tolerance);
    CHECK(r.gmm.variance_floor == o.gmm.variance_floor);
    CHECK(r.gmm.min_weight == o.gmm.min_weight);
    CHECK(r.policy.rule == o.policy.rule);
    CHECK(r.policy.max_lists == o.policy.max_lists);
    CHECK(r.policy.epsilon == o.policy.epsilon);
    CHECK(r.policy.tau == o.policy.tau);
    CHECK(r.policy.lambda == o.policy.lambda);
    CHECK(r.policy.strict == o.policy.strict);
    CHECK(r.policy.candidates == o.policy.candidates);
    CHECK(ivf.ntotal == (idx_t)nb);
    CHECK(ListContents(ivf) == ListContents(*flash.ivf));

    const std::vector<float> xq = clustered(30, d, 2);
    const Results before = search(*flash.ivf, xq, 9);
    const Results after = search(ivf, xq, 9);
    CHECK(after.labels == before.labels);
    CHECK(after.distances == before.distances);
    CHECK(count_duplicates(after.labels, 9) == 0);
    // and goes on as before
    o.policy = r.policy = AssignmentPolicy::responsibility(0.1, 3);
    o.engine = r.engine = "auto";
    flash->add(30, xq.data());
    ivf.add(30, xq.data());
    CHECK(ListContents(ivf) == ListContents(*flash.ivf));
}

TEST_CASE("variances and mixture quantizers come back", "[sanitize]") {
    Folder folder;
    auto* quantizer = new MixtureQuantizer(d, nlist);
    quantizer->engine = "reference";
    quantizer->gmm.em_niter = 4;
    const std::vector<float> x = clustered(nb, d, 3);
    IndexIVFFlatFlash index(quantizer, d, nlist);
    index.own_fields = true;
    const bool trained = GENERATE(true, false);
    if (trained) {
        index.train(nb, x.data());
        index.add(nb, x.data());
    }
    faiss_flash::write_index(&index, folder.file().c_str());
    const auto read = read_as<IndexIVFFlatFlash>(folder.file());
    CHECK(read->own_fields);
    auto* mixture = dynamic_cast<MixtureQuantizer*>(read->quantizer);
    REQUIRE(mixture);
    CHECK(mixture->ntotal == quantizer->ntotal);
    CHECK(mixture->nlist == nlist);
    CHECK(mixture->engine == "reference");
    CHECK(mixture->gmm.em_niter == 4);
    CHECK(mixture->variances == quantizer->variances);
    CHECK(mixture->mixing_weights == quantizer->mixing_weights);
    CHECK(read->variances == index.variances);
    CHECK(read->mixing_weights == index.mixing_weights);
    CHECK(read->is_trained == trained);
    CHECK(read->has_copies == index.has_copies);
    if (trained) {
        CHECK(read->model().means == index.model().means);
    } else {
        read->train(nb, x.data());
        CHECK(read->is_trained);
    }
}

TEST_CASE("stock FAISS opens our files", "[sanitize]") {
    const Codec codec = GENERATE(Codec::flat, Codec::pq, Codec::sq8);
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(codec, &quantizer);
    faiss_flash::write_index(flash.ivf.get(), folder.file().c_str());

    std::unique_ptr<faiss::Index> read(
            faiss::read_index(folder.file().c_str()));
    auto& stock = dynamic_cast<faiss::IndexIVF&>(*read);
    CHECK_FALSE(dynamic_cast<FlashOptions*>(read.get()));
    CHECK(stock.ntotal == (idx_t)nb);
    CHECK(stock.invlists->compute_ntotal() == 2 * nb);
    CHECK(ListContents(stock) == ListContents(*flash.ivf));
    // what it finds is there, with copies as duplicates
    const std::vector<float> xq = clustered(20, d, 4);
    stock.nprobe = nlist;
    const idx_t k = 2 * nb;
    const Results found = search(stock, xq, k);
    CHECK(count_duplicates(found.labels, k) == 20 * nb);
    // and a flash index made from it notices
    if (codec == Codec::flat) {
        IndexIVFFlatFlash again(dynamic_cast<faiss::IndexIVFFlat&>(stock));
        CHECK(again.has_copies);
        const Results once = search(again, xq, nb);
        CHECK(count_duplicates(once.labels, nb) == 0);
    }
}

TEST_CASE("files of others are refused") {
    Folder folder;
    const std::vector<float> x = clustered(nb, d, 5);
    faiss::IndexFlatL2 flat(d);
    flat.add(nb, x.data());
    faiss::write_index(&flat, folder.file().c_str());
    check_unreadable(folder.file(), {"truncated", "faiss::write_index"});
    check_unreadable(folder.file("missing"), {"No such file"});
    check_unreadable(folder.path, {});
    put_bytes(folder.file("empty"), "");
    check_unreadable(folder.file("empty"), {"truncated"});
    put_bytes(folder.file("text"), std::string(500, 'x'));
    check_unreadable(folder.file("text"), {"truncated"});
    CHECK_THROWS_AS(
            faiss_flash::read_index(nullptr), faiss::FaissException);

    check_throws(
            [&] { faiss_flash::write_index(&flat, folder.file().c_str()); },
            {folder.file(), "IndexIVFFlatFlash"});
    check_throws(
            [&] { faiss_flash::write_index(nullptr, folder.file().c_str()); },
            {folder.file()});
    CHECK_THROWS_AS(
            faiss_flash::write_index(&flat, nullptr), faiss::FaissException);
}

TEST_CASE("truncated at any length and with any byte flipped",
          "[sanitize]") {
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::sq8, &quantizer);
    faiss_flash::write_index(flash.ivf.get(), folder.file().c_str());
    const std::string whole = bytes_of(folder.file());
    const std::string damaged = folder.file("damaged");
    const size_t n = whole.size();
    // every length and byte of both ends, and a sample of what is between
    std::vector<size_t> places;
    for (size_t i = 0; i < n; i++) {
        if (i < 120 || i > n - 200 || i % 97 == 0) {
            places.push_back(i);
        }
    }
    for (size_t i : places) {
        put_bytes(damaged, whole.substr(0, i));
        check_unreadable(damaged);
        std::string flipped = whole;
        flipped[i] ^= 1 << (i % 8);
        put_bytes(damaged, flipped);
        check_unreadable(damaged);
    }
    put_bytes(damaged, whole + "\n");
    check_unreadable(damaged);
    put_bytes(damaged, whole);
    CHECK_NOTHROW(read_as<IndexIVFScalarQuantizerFlash>(damaged));
}

TEST_CASE("newer versions and hostile lengths in the footer") {
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::flat, &quantizer);
    faiss_flash::write_index(flash.ivf.get(), folder.file().c_str());
    const std::string whole = bytes_of(folder.file());
    const size_t footer = whole.size() - 40;
    auto with_number = [&](size_t offset, uint64_t value, size_t bytes) {
        std::string changed = whole;
        memcpy(&changed[footer + offset], &value, bytes);
        put_bytes(folder.file("changed"), changed);
        return folder.file("changed");
    };
    check_unreadable(with_number(16, 2, 4), {"version 2", "newer"});
    check_unreadable(with_number(16, 0xffffffff, 4), {"newer"});
    check_unreadable(with_number(16, 0, 4), {"damaged"});
    uint64_t stock_bytes, payload_bytes;
    memcpy(&stock_bytes, &whole[footer], 8);
    memcpy(&payload_bytes, &whole[footer + 8], 8);
    const uint64_t most = std::numeric_limits<uint64_t>::max();
    for (uint64_t value : {uint64_t(0),
                           stock_bytes - 1,
                           stock_bytes + 1,
                           uint64_t(1) << 40,
                           most - payload_bytes,
                           most}) {
        check_unreadable(with_number(0, value, 8), {"damaged"});
    }
    for (uint64_t value :
         {uint64_t(0), payload_bytes + 1, uint64_t(1) << 60, most}) {
        check_unreadable(with_number(8, value, 8), {"damaged"});
    }
}

TEST_CASE("a sealed file whose content is wrong") {
    // the checksum is right: whoever made the file meant it
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::flat, &quantizer);
    const Parts parts = written_parts(*flash.ivf, folder.file());
    const std::string made = folder.file("made");
    auto replaced = [&](const std::string& from, const std::string& to) {
        std::string changed = parts.payload;
        const size_t at = changed.find(from);
        REQUIRE(at != std::string::npos);
        return changed.replace(at, from.size(), to);
    };
    seal(made, parts);
    CHECK_NOTHROW(read_as<IndexIVFFlatFlash>(made));

    for (const std::string& trailer :
         {std::string(""),
          std::string("{"),
          std::string("null"),
          std::string("[1, 2]"),
          std::string("{}"),
          replaced("IndexIVFFlatFlash", "IndexIVFPQFlash"),
          replaced("IndexIVFFlatFlash", "IndexLSH"),
          replaced("\"top_m\"", "\"nearest_two\""),
          replaced("\"top_m\"", "3"),
          replaced("\"gmm\"", "\"mgg\""),
          replaced("\"ntotal\":400", "\"ntotal\":401"),
          replaced("\"entries\":800", "\"entries\":-800"),
          replaced("\"variances\":[", "\"variances\":[-"),
          replaced("\"variances\":[", "\"variances\":[1.0,"),
          replaced("\"mixing_weights\":[", "\"mixing_weights\":[null,"),
          replaced("\"max_lists\":2", "\"max_lists\":\"two\"")}) {
        seal(made, {parts.stock, trailer});
        INFO(trailer.substr(0, 200));
        check_unreadable(made);
    }
    seal(made, {parts.stock + "0123456789", parts.payload});
    check_unreadable(made, {"left"});
}

// FAISS 1.7.3 leaks what it has read when it throws: not for the leak checker.
TEST_CASE("a sealed file whose FAISS part is wrong", "[slow]") {
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::flat, &quantizer);
    const Parts parts = written_parts(*flash.ivf, folder.file());
    const std::string made = folder.file("made");
    std::string other_kind = parts.stock;
    memcpy(&other_kind[0], "IxF2", 4);
    std::string other_class = parts.stock;
    memcpy(&other_class[0], "IwPQ", 4);
    for (const std::string& part :
         {std::string(),
          parts.stock.substr(0, 3),
          parts.stock.substr(0, parts.stock.size() - 10),
          other_kind,
          other_class}) {
        seal(made, {part, parts.payload});
        check_unreadable(made);
    }
}

// Sanitizers end the program where malloc would return a null pointer.
TEST_CASE("hostile sizes inside FAISS's part", "[slow]") {
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::flat, &quantizer);
    const Parts parts = written_parts(*flash.ivf, folder.file());
    const std::string& stock = parts.stock;
    // every 8-byte number that says how many vectors, lists or bytes follow
    std::set<uint64_t> sizes = {
            nlist, nb, 2 * nb, d * sizeof(float), nlist * d};
    for (size_t list = 0; list < nlist; list++) {
        sizes.insert(flash->invlists->list_size(list));
    }
    size_t tried = 0;
    for (size_t i = 0; i + 8 <= stock.size(); i++) {
        uint64_t value;
        memcpy(&value, &stock[i], 8);
        if (!sizes.count(value) || (i > 600 && i < stock.size() - 60000)) {
            continue;
        }
        for (uint64_t hostile : {uint64_t(1) << 38,
                                 (uint64_t(1) << 40) - 1,
                                 uint64_t(1) << 62,
                                 std::numeric_limits<uint64_t>::max()}) {
            std::string changed = stock;
            memcpy(&changed[i], &hostile, 8);
            seal(folder.file("made"), {changed, parts.payload});
            INFO("offset " << i << " value " << hostile);
            // whatever happens, it is an exception and not the end; numbers
            // that are ids or code bytes by chance do no harm
            try {
                delete faiss_flash::read_index(folder.file("made").c_str());
            } catch (const faiss::FaissException& e) {
                CHECK_THAT(
                        std::string(e.what()),
                        Catch::Matchers::ContainsSubstring("made"));
                tried++;
            }
        }
    }
    CHECK(tried >= 8);
}

TEST_CASE("a failed save leaves the old file and nothing else") {
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::flat, &quantizer);
    const std::string path = folder.file();
    faiss_flash::write_index(flash.ivf.get(), path.c_str());
    const std::string before = bytes_of(path);
    const size_t limit = GENERATE(0, 100, 5000, 20000);
    const int status = in_child([&] {
        // the disk is full after `limit` bytes
        signal(SIGXFSZ, SIG_IGN);
        const rlimit most = {limit, limit};
        setrlimit(RLIMIT_FSIZE, &most);
        try {
            faiss_flash::write_index(flash.ivf.get(), path.c_str());
            _exit(1);
        } catch (const faiss::FaissException& e) {
            const std::string message = e.what();
            _exit(message.find(path) != std::string::npos ? 0 : 2);
        } catch (...) {
            _exit(3);
        }
    });
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(bytes_of(path) == before);
    CHECK(folder.count() == 1);
}

TEST_CASE("a save is whole or absent when the process is killed") {
    Folder folder;
    faiss::IndexFlatL2 quantizer_a(d), quantizer_b(d);
    Flash a = make_index(Codec::flat, &quantizer_a, 1);
    Flash b = make_index(Codec::flat, &quantizer_b, 2);
    const std::string path = folder.file();
    faiss_flash::write_index(b.ivf.get(), path.c_str());
    const std::string bytes_b = bytes_of(path);
    faiss_flash::write_index(a.ivf.get(), path.c_str());
    const std::string bytes_a = bytes_of(path);

    // a child that saves one after the other until it is killed
    std::mt19937 rng(1);
    size_t interrupted = 0;
    for (int round = 0; round < 25; round++) {
        const pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            for (;;) {
                faiss_flash::write_index(b.ivf.get(), path.c_str());
                faiss_flash::write_index(a.ivf.get(), path.c_str());
            }
        }
        usleep(1000 + rng() % 8000);
        kill(pid, SIGKILL);
        int status = 0;
        waitpid(pid, &status, 0);
        REQUIRE(WIFSIGNALED(status));
        const std::string now = bytes_of(path);
        CHECK((now == bytes_a || now == bytes_b));
        interrupted += folder.count() > 1; // its temporary file is left
        for (const auto& entry : fs::directory_iterator(folder.path)) {
            if (entry.path() != path) {
                fs::remove(entry.path());
            }
        }
    }
    CHECK(interrupted > 0);
    CHECK_NOTHROW(read_as<IndexIVFFlatFlash>(path));
    faiss_flash::write_index(b.ivf.get(), path.c_str());
    CHECK(bytes_of(path) == bytes_b);
}

TEST_CASE("where files go") {
    Folder folder;
    faiss::IndexFlatL2 quantizer(d);
    Flash flash = make_index(Codec::flat, &quantizer);
    const faiss::Index* index = flash.ivf.get();
    check_throws(
            [&] {
                faiss_flash::write_index(
                        index, folder.file("no/such/folder").c_str());
            },
            {"no/such/folder", "No such file"});
    check_throws(
            [&] { faiss_flash::write_index(index, folder.path.c_str()); },
            {folder.path, "regular file"});
    check_throws(
            [&] { faiss_flash::write_index(index, "/dev/null"); },
            {"/dev/null", "regular file"});
    // through a link, which stays one
    fs::create_symlink("target", folder.file("link"));
    put_bytes(folder.file("target"), "old");
    faiss_flash::write_index(index, folder.file("link").c_str());
    CHECK(fs::is_symlink(folder.file("link")));
    CHECK_NOTHROW(read_as<IndexIVFFlatFlash>(folder.file("target")));
    CHECK(folder.count() == 2);
    // a path without a folder
    const fs::path here = fs::current_path();
    fs::current_path(folder.path);
    faiss_flash::write_index(index, "plain");
    fs::current_path(here);
    CHECK_NOTHROW(read_as<IndexIVFFlatFlash>(folder.file("plain")));
    // readable by whom the umask says
    struct stat status;
    REQUIRE(stat(folder.file("plain").c_str(), &status) == 0);
    const mode_t mask = umask(0);
    umask(mask);
    CHECK((status.st_mode & 0777) == (0666 & ~mask));
}
