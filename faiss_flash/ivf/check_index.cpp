#include <faiss_flash/ivf/check_index.h>

#include <algorithm>
#include <cinttypes>

#include <faiss_flash/check_input.h>

namespace faiss_flash {

void check_ready(const char* operation, const faiss::IndexIVF& index) {
    FAISS_THROW_IF_NOT_FMT(
            index.metric_type == faiss::METRIC_L2 ||
                    index.metric_type == faiss::METRIC_INNER_PRODUCT,
            "%s: metric_type = %d should be METRIC_L2 (%d) or "
            "METRIC_INNER_PRODUCT (%d)",
            operation,
            (int)index.metric_type,
            (int)faiss::METRIC_L2,
            (int)faiss::METRIC_INNER_PRODUCT);
    FAISS_THROW_IF_NOT_FMT(
            index.quantizer, "%s: the index has no quantizer", operation);
    FAISS_THROW_IF_NOT_FMT(
            index.invlists, "%s: the index has no inverted lists", operation);
    FAISS_THROW_IF_NOT_FMT(
            index.invlists->code_size == index.code_size,
            "%s: inverted lists with code_size = %zd should have %zd; packed "
            "codes (BlockInvertedLists) are for FAISS's FastScan indexes",
            operation,
            index.invlists->code_size,
            index.code_size);
}

void check_trained(const char* operation, const faiss::Index& index) {
    FAISS_THROW_IF_NOT_FMT(
            index.is_trained,
            "%s: the index is not trained; call train()",
            operation);
}

void check_vectors(
        const char* operation,
        const faiss::Index& index,
        idx_t n,
        idx_t least,
        const float* x) {
    FAISS_THROW_IF_NOT_FMT(
            n >= least,
            "%s: n = %" PRId64 " vectors should be at least %" PRId64,
            operation,
            (int64_t)n,
            (int64_t)least);
    FAISS_THROW_IF_NOT_FMT(n == 0 || x, "%s: x is a null pointer", operation);
    check_finite(operation, n, index.d, x);
}

void check_queries(const faiss::IndexIVF& index, idx_t n, const float* x) {
    check_ready("search", index);
    check_trained("search", index);
    check_vectors("search", index, n, 0, x);
}

void check_parallel_mode(const faiss::IndexIVF& index, bool range) {
    const int mode = range
            ? index.parallel_mode
            : index.parallel_mode & ~index.PARALLEL_MODE_NO_HEAP_INIT;
    FAISS_THROW_IF_NOT_FMT(
            mode >= 0 && mode <= (range ? 2 : 3),
            "parallel_mode = %d is not supported here: set it to 0",
            index.parallel_mode);
}

void check_keys(
        const faiss::IndexIVF& index,
        idx_t n,
        const idx_t* keys,
        const faiss::IVFSearchParameters* params) {
    const size_t nprobe =
            std::min(index.nlist, params ? params->nprobe : index.nprobe);
    FAISS_THROW_IF_NOT_FMT(
            nprobe > 0, "search: nprobe = %zd should be above 0", nprobe);
    for (size_t i = 0; i < n * nprobe; i++) {
        FAISS_THROW_IF_NOT_FMT(
                keys[i] < (idx_t)index.nlist,
                "assign[%zd] = %" PRId64 " should be below nlist = %zd",
                i,
                (int64_t)keys[i],
                index.nlist);
    }
}

void check_own_lists(
        const char* operation,
        const faiss::IndexIVF& index,
        idx_t n,
        int m,
        const idx_t* lists) {
    FAISS_THROW_IF_NOT_FMT(
            m >= 1, "%s: m = %d lists should be at least 1", operation, m);
    FAISS_THROW_IF_NOT_FMT(
            n == 0 || lists, "%s: lists is a null pointer", operation);
    for (idx_t i = 0; i < n; i++) {
        const idx_t* row = lists + i * m;
        for (int j = 0; j < m; j++) {
            FAISS_THROW_IF_NOT_FMT(
                    row[j] < (idx_t)index.nlist,
                    "%s: lists[%" PRId64 "][%d] = %" PRId64
                    " should be below nlist = %zd",
                    operation,
                    (int64_t)i,
                    j,
                    (int64_t)row[j],
                    index.nlist);
            FAISS_THROW_IF_NOT_FMT(
                    row[j] < 0 || std::find(row, row + j, row[j]) == row + j,
                    "%s: lists[%" PRId64 "][%d] = %" PRId64
                    " comes twice in its row",
                    operation,
                    (int64_t)i,
                    j,
                    (int64_t)row[j]);
        }
    }
}

} // namespace faiss_flash
