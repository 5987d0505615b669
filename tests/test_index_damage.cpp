// Everything that can be wrong with a file of an index.

#include <tests/index_file_util.h>

#include <cstring>
#include <limits>

#include <faiss/index_io.h>

#include <faiss_flash/MixtureQuantizer.h>
#include <faiss_flash/io/sealed_file.h>

using namespace faiss_flash;
using namespace test;

namespace {

constexpr size_t d = file_d, nlist = file_nlist, nb = file_nb;

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

} // namespace

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
    CHECK_THROWS_AS(faiss_flash::read_index(nullptr), faiss::FaissException);

    check_throws(
            [&] { faiss_flash::write_index(&flat, folder.file().c_str()); },
            {folder.file(), "IndexIVFFlatFlash"});
    check_throws(
            [&] { faiss_flash::write_index(nullptr, folder.file().c_str()); },
            {folder.file()});
    CHECK_THROWS_AS(
            faiss_flash::write_index(&flat, nullptr), faiss::FaissException);
}

TEST_CASE("truncated at any length and with any byte flipped", "[sanitize]") {
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
    for (uint64_t value :
         {uint64_t(0),
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
          replaced("\"spherical\"", "\"full\""),
          replaced("\"spherical\"", "1"),
          replaced("\"mixing_weights\":[", "\"mixing_weights\":[null,"),
          replaced("\"max_lists\":2", "\"max_lists\":\"two\"")}) {
        seal(made, {parts.stock, trailer});
        INFO(trailer.substr(0, 200));
        check_unreadable(made);
    }
    seal(made, {parts.stock + "0123456789", parts.payload});
    check_unreadable(made, {"left"});
}

TEST_CASE("a sealed file with a wrong number of variances") {
    Folder folder;
    const std::vector<float> x = clustered(nb, d, 1);
    MixtureQuantizer quantizer(d, nlist);
    quantizer.gmm.em_niter = 2;
    quantizer.gmm.covariance = Covariance::diag;
    IndexIVFFlatFlash index(&quantizer, d, nlist);
    index.quantizer_trains_alone = 1;
    index.train(nb, x.data());
    REQUIRE(index.variances.size() == nlist * d);
    const Parts parts = written_parts(index, folder.file());
    const std::string made = folder.file("made");
    seal(made, parts);
    CHECK_NOTHROW(read_as<IndexIVFFlatFlash>(made));
    // the quantizer's come first in the payload, then the index's
    const std::string name = "\"variances\":[";
    for (const bool first : {true, false}) {
        const size_t at =
                first ? parts.payload.find(name) : parts.payload.rfind(name);
        REQUIRE(at != std::string::npos);
        const size_t begin = at + name.size();
        const size_t end = parts.payload.find(']', begin);
        const auto with = [&](const std::string& values) {
            std::string payload = parts.payload;
            seal(made,
                 {parts.stock, payload.replace(begin, end - begin, values)});
        };
        const auto ones = [](size_t count) {
            std::string text = "1";
            for (size_t i = 1; i < count; i++) {
                text += ",1";
            }
            return text;
        };
        for (const size_t count : {nlist, nlist * d}) {
            with(ones(count));
            CHECK_NOTHROW(read_as<IndexIVFFlatFlash>(made));
        }
        for (const size_t count :
             {size_t(1),
              d,
              nlist - 1,
              nlist * d - 1,
              nlist * d + 1,
              nlist * (d - 1),
              2 * nlist * d}) {
            with(ones(count));
            INFO(count << " variances");
            check_unreadable(made, {"variances", "lists"});
        }
        with(ones(nlist * d - 1) + ",0");
        check_unreadable(made, {"variances"});
    }
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
        for (uint64_t hostile :
             {uint64_t(1) << 38,
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
