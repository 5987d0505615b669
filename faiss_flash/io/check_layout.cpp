#include <faiss_flash/io/check_layout.h>

#include <faiss/impl/ScalarQuantizer.h>

#include <faiss_flash/io/layout_reader.h>

namespace faiss_flash {

namespace {

class LayoutWalker {
   public:
    LayoutWalker(std::FILE* file, uint64_t bytes) : in_(file, bytes) {}

    void walk() {
        index(0);
        FAISS_THROW_IF_NOT_FMT(
                in_.left() == 0,
                "%llu bytes are left behind the index",
                ull(in_.left()));
    }

   private:
    /// What a wrapper has to know of an index.
    struct Facts {
        int d = 0;
        int64_t ntotal = 0;
        bool is_trained = false;
        int metric = 0;
    };

    Facts header() {
        Facts facts;
        facts.d = in_.get<int>();
        facts.ntotal = in_.get<int64_t>();
        in_.skip(16); // unused
        facts.is_trained = in_.get_bool("is_trained");
        facts.metric = in_.get<int>();
        FAISS_THROW_IF_NOT_FMT(
                facts.d > 0 && facts.ntotal >= 0,
                "d = %d and ntotal = %" PRId64 " are no index's",
                facts.d,
                facts.ntotal);
        FAISS_THROW_IF_NOT_FMT(
                facts.metric == faiss::METRIC_L2 ||
                        facts.metric == faiss::METRIC_INNER_PRODUCT,
                "metric_type = %d should be METRIC_L2 or "
                "METRIC_INNER_PRODUCT",
                facts.metric);
        return facts;
    }

    Facts index(int depth) {
        FAISS_THROW_IF_NOT_MSG(depth < 8, "indexes nested too deeply");
        const auto fourcc = in_.get<uint32_t>();
        if (in_.is(fourcc, "IxF2") || in_.is(fourcc, "IxFI")) {
            return flat(in_.is(fourcc, "IxF2"));
        }
        if (in_.is(fourcc, "IwFl") || in_.is(fourcc, "IwPQ") ||
            in_.is(fourcc, "IwSq")) {
            return ivf(fourcc, depth);
        }
        if (in_.is(fourcc, "IHNf") || in_.is(fourcc, "IHNs")) {
            return hnsw(depth);
        }
        if (in_.is(fourcc, "IxSQ")) {
            const Facts facts = header();
            const size_t code_size = scalar_quantizer(facts);
            FAISS_THROW_IF_NOT(
                    (uint64_t)facts.ntotal <= in_.left() / code_size);
            in_.vector("codes", 1, facts.ntotal * code_size);
            return facts;
        }
        if (in_.is(fourcc, "IxPT")) {
            return pre_transform(depth);
        }
        if (in_.is(fourcc, "IxMp") || in_.is(fourcc, "IxM2")) {
            const Facts facts = header();
            same_size(facts, index(depth + 1));
            in_.vector("id_map", sizeof(int64_t), facts.ntotal);
            return facts;
        }
        if (in_.is(fourcc, "IxRF")) {
            return refine(depth);
        }
        in_.unknown("an index", fourcc);
    }

    static void same_size(const Facts& outer, const Facts& inner) {
        FAISS_THROW_IF_NOT_FMT(
                outer.d == inner.d && outer.ntotal == inner.ntotal,
                "an index of d = %d and ntotal = %" PRId64
                " inside one of d = %d and ntotal = %" PRId64,
                inner.d,
                inner.ntotal,
                outer.d,
                outer.ntotal);
    }

    Facts flat(bool l2) {
        const Facts facts = header();
        FAISS_THROW_IF_NOT_MSG(
                l2 == (facts.metric == faiss::METRIC_L2),
                "a flat index whose kind and metric_type disagree");
        FAISS_THROW_IF_NOT_MSG(
                (uint64_t)facts.ntotal <= in_.left() / facts.d,
                "a flat index has more vectors than bytes");
        in_.vector(
                "a flat index's vectors",
                sizeof(float),
                (uint64_t)facts.ntotal * facts.d);
        return facts;
    }

    Facts hnsw(int depth) {
        const Facts facts = header();
        const uint64_t n = facts.ntotal;
        in_.vector("assign_probas", sizeof(double));
        in_.vector("cum_nneighbor_per_level", sizeof(int));
        in_.vector("levels", sizeof(int), n);
        in_.vector("offsets", sizeof(size_t), n + 1);
        in_.vector("neighbors", sizeof(int32_t));
        in_.skip(5 * sizeof(int32_t)); // check_contents() looks at them
        same_size(facts, index(depth + 1));
        return facts;
    }

    Facts refine(int depth) {
        const Facts facts = header();
        same_size(facts, index(depth + 1));
        same_size(facts, index(depth + 1));
        const auto k_factor = in_.get<float>();
        FAISS_THROW_IF_NOT_FMT(
                k_factor >= 1 && k_factor <= 10000,
                "k_factor = %g should be at least 1 and at most 10000",
                k_factor);
        return facts;
    }

    Facts pre_transform(int depth) {
        const Facts facts = header();
        const auto ntransform = in_.get<int>();
        FAISS_THROW_IF_NOT_FMT(
                ntransform >= 0 && ntransform <= 100,
                "%d transforms should be at most 100",
                ntransform);
        int d = facts.d;
        for (int i = 0; i < ntransform; i++) {
            const TransformDims dims = check_transform_layout(in_);
            FAISS_THROW_IF_NOT_FMT(
                    dims.in == d,
                    "a transform from d = %d follows d = %d",
                    dims.in,
                    d);
            d = dims.out;
        }
        const Facts inner = index(depth + 1);
        FAISS_THROW_IF_NOT_FMT(
                inner.d == d && inner.ntotal == facts.ntotal,
                "an index of d = %d and ntotal = %" PRId64
                " behind transforms to d = %d of ntotal = %" PRId64,
                inner.d,
                inner.ntotal,
                d,
                facts.ntotal);
        return facts;
    }

    /*** inverted files ***/

    Facts ivf(uint32_t fourcc, int depth) {
        Facts facts = header();
        const auto nlist = in_.get<uint64_t>();
        in_.skip(sizeof(size_t)); // nprobe
        const Facts quantizer = index(depth + 1);
        FAISS_THROW_IF_NOT_FMT(
                quantizer.d == facts.d,
                "a quantizer of d = %d in an index of d = %d",
                quantizer.d,
                facts.d);
        FAISS_THROW_IF_NOT_FMT(
                nlist >= 1 &&
                        (!facts.is_trained ||
                         (quantizer.is_trained &&
                          (uint64_t)quantizer.ntotal == nlist)),
                "nlist = %llu with a quantizer of %" PRId64 " centroids",
                ull(nlist),
                quantizer.ntotal);
        FAISS_THROW_IF_NOT_FMT(
                nlist <= (1 << 20) + in_.bytes(),
                "nlist = %llu for a file of %llu bytes",
                ull(nlist),
                ull(in_.bytes()));
        direct_map();
        size_t code_size = (size_t)facts.d * sizeof(float);
        if (in_.is(fourcc, "IwPQ")) {
            in_.get_bool("by_residual");
            const auto stored = in_.get<uint64_t>();
            code_size = product_quantizer(facts);
            same_code_size(stored, code_size);
        } else if (in_.is(fourcc, "IwSq")) {
            code_size = scalar_quantizer(facts);
            same_code_size(in_.get<uint64_t>(), code_size);
            in_.get_bool("by_residual");
        }
        check_lists_layout(in_, nlist, code_size);
        return facts;
    }

    void direct_map() {
        const auto type = in_.get<uint8_t>();
        FAISS_THROW_IF_NOT_FMT(
                type <= faiss::DirectMap::Hashtable,
                "a direct map of type %d",
                type);
        in_.vector("direct map", sizeof(int64_t));
        if (type == faiss::DirectMap::Hashtable) {
            in_.vector("direct map", 2 * sizeof(int64_t));
        }
    }

    size_t product_quantizer(const Facts& facts) {
        const auto d = in_.get<uint64_t>(), m = in_.get<uint64_t>(),
                   nbits = in_.get<uint64_t>();
        FAISS_THROW_IF_NOT_FMT(
                d == (uint64_t)facts.d && m >= 1 && d % m == 0 && nbits >= 1 &&
                        nbits <= 24,
                "a product quantizer with d = %llu, M = %llu, nbits = %llu "
                "for d = %d",
                ull(d),
                ull(m),
                ull(nbits),
                facts.d);
        in_.vector(
                "a product quantizer's centroids", sizeof(float), d << nbits);
        return (nbits * m + 7) / 8;
    }

    size_t scalar_quantizer(const Facts& facts) {
        using SQ = faiss::ScalarQuantizer;
        const auto type = in_.get<int>();
        const auto rangestat = in_.get<int>();
        in_.skip(sizeof(float)); // rangestat_arg
        const auto d = in_.get<uint64_t>();
        const auto code_size = in_.get<uint64_t>();
        // bits of the types that store nothing but ranges, in FAISS's order
        constexpr int bits[] = {8, 4, 8, 4, 16, 8, 6, 16, 8};
        FAISS_THROW_IF_NOT_FMT(
                type >= 0 && type < FAISS_FLASH_SQ_TYPES && rangestat >= 0 &&
                        rangestat <= SQ::RS_optim,
                "files hold no scalar quantizer of type %d",
                type);
        FAISS_THROW_IF_NOT_FMT(
                d == (uint64_t)facts.d && code_size == (d * bits[type] + 7) / 8,
                "a scalar quantizer of d = %llu and code_size = %llu for "
                "d = %d",
                ull(d),
                ull(code_size),
                facts.d);
        const uint64_t trained = in_.vector("a scalar quantizer's range", 4);
        const bool uniform =
                type == SQ::QT_8bit_uniform || type == SQ::QT_4bit_uniform;
        const bool none = bits[type] == 16 || type == SQ::QT_8bit_direct ||
                type > SQ::QT_6bit;
        FAISS_THROW_IF_NOT_MSG(
                !facts.is_trained ||
                        trained >= (uniform        ? 2
                                            : none ? 0
                                                   : 2 * d),
                "a scalar quantizer without its ranges");
        return code_size;
    }

    LayoutReader in_;
};

} // namespace

void check_layout(std::FILE* file, uint64_t bytes) {
    LayoutWalker(file, bytes).walk();
}

} // namespace faiss_flash
