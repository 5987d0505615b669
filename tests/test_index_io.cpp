// Files of indexes: what comes back, what stock FAISS makes of them, and what
// a save that does not end leaves.

#include <tests/index_file_util.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <typeinfo>

#include <faiss/index_io.h>

#include <faiss_flash/MixtureQuantizer.h>

using namespace faiss_flash;
using namespace test;

namespace {

constexpr size_t d = file_d, nlist = file_nlist, nb = file_nb;

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
    const auto metric = GENERATE(faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT);
    Folder folder;
    faiss::IndexFlat quantizer(d, metric);
    Flash flash = make_index(codec, &quantizer);
    auto& o = *flash.options;
    o.trainer = Trainer::gmm;
    o.engine = "reference";
    o.gmm.covariance = Covariance::tied_diag;
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
    REQUIRE(read);
    const faiss::Index &was = *flash.ivf, &is = *read;
    REQUIRE(typeid(is) == typeid(was));
    auto& ivf = dynamic_cast<faiss::IndexIVF&>(*read);
    auto& r = dynamic_cast<FlashOptions&>(*read);
    CHECK(r.trainer == o.trainer);
    CHECK(r.engine == o.engine);
    CHECK(r.gmm.em_niter == o.gmm.em_niter);
    CHECK(r.gmm.warm_start_niter == o.gmm.warm_start_niter);
    CHECK(r.gmm.covariance == o.gmm.covariance);
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
    const bool diagonal = GENERATE(false, true);
    if (diagonal) {
        quantizer->gmm.covariance = Covariance::diag;
    }
    const std::vector<float> x = clustered(nb, d, 3);
    IndexIVFFlatFlash index(quantizer, d, nlist);
    index.own_fields = true;
    const bool trained = GENERATE(true, false);
    index.gmm.covariance = quantizer->gmm.covariance;
    index.policy = AssignmentPolicy::responsibility(0.01, 3);
    if (trained) {
        index.train(nb, x.data());
        index.add(nb, x.data());
        CHECK(index.variances.size() == nlist * (diagonal ? d : 1));
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
    CHECK(read->gmm.covariance == index.gmm.covariance);
    CHECK(mixture->gmm.covariance == quantizer->gmm.covariance);
    if (trained) {
        CHECK(read->model().means == index.model().means);
        CHECK(read->model().variances == quantizer->variances);
        // and vectors go where they would have gone
        const std::vector<float> more = clustered(100, d, 4);
        index.add(100, more.data());
        read->add(100, more.data());
        CHECK(index.has_copies);
        CHECK(ListContents(*read) == ListContents(index));
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
