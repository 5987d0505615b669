#include <faiss_flash/ivf/store_vectors.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace faiss_flash {

namespace {

/// fn(i0, count) for blocks of rows with m entries each.
template <class Fn>
void for_each_block(const faiss::IndexIVF& index, idx_t n, size_t m, Fn&& fn) {
    const idx_t block = rows_per_block(index.d, m);
    for (idx_t i0 = 0; i0 < n; i0 += block) {
        faiss::InterruptCallback::check();
        const idx_t count = std::min(block, n - i0);
        fn(i0, count);
        if (index.verbose) {
            printf("Added %" PRId64 " / %" PRId64 " vectors\n",
                   (int64_t)(i0 + count),
                   (int64_t)n);
        }
    }
}

} // namespace

idx_t rows_per_block(size_t d, size_t m) {
    const size_t entries = std::min<size_t>(32768, (8 << 20) / d);
    return std::max<size_t>(1, entries / m);
}

PolicyLists::PolicyLists(
        const FlashOptions& options,
        Model centroids,
        idx_t n,
        const float* x)
        : policy_(options.policy),
          centroids_(std::move(centroids)),
          engine_(get_engine(
                  options.engine,
                  (double)n * centroids_.k * centroids_.d)),
          n_(n),
          x_(x) {
    centroids_.metric = Metric::l2;
    const size_t m = policy_.list_limit();
    const idx_t block = rows_per_block(centroids_.d, m);
    const size_t work = (size_t(1) << 38) / (centroids_.k * centroids_.d);
    const size_t rows = std::min(work, (size_t(1) << 21) / m);
    at_once_ = std::max<idx_t>(1, rows / block) * block;
}

const idx_t* PolicyLists::of(idx_t i0) {
    const size_t m = policy_.list_limit();
    if (i0 % at_once_ == 0) {
        first_ = i0;
        const idx_t rows = std::min(at_once_, n_ - first_);
        lists_.resize(rows * m);
        assign_lists(
                policy_,
                engine_,
                centroids_,
                rows,
                x_ + first_ * centroids_.d,
                lists_.data());
    }
    return lists_.data() + (i0 - first_) * m;
}

void store_by_policy(
        ListTransaction& transaction,
        const faiss::IndexIVF& index,
        const FlashOptions& options,
        const std::function<Model()>& model,
        idx_t n,
        const float* x) {
    const AssignmentPolicy& policy = options.policy;
    if (policy.rule == AssignmentRule::nearest) {
        // in one call, so that rounding is FAISS's as well
        std::vector<idx_t> lists(n);
        index.quantizer->assign(n, x, lists.data());
        store_in_lists(transaction, index, n, x, 1, lists.data());
        return;
    }
    const size_t m = policy.list_limit();
    PolicyLists lists(options, model(), n, x);
    for_each_block(index, n, m, [&](idx_t i0, idx_t count) {
        transaction.store(count, x + i0 * index.d, m, lists.of(i0));
    });
}

void store_in_lists(
        ListTransaction& transaction,
        const faiss::IndexIVF& index,
        idx_t n,
        const float* x,
        int m,
        const idx_t* lists) {
    for_each_block(index, n, m, [&](idx_t i0, idx_t count) {
        transaction.store(count, x + i0 * index.d, m, lists + i0 * m);
    });
}

void store_sa_codes(
        ListTransaction& transaction,
        const faiss::IndexIVF& index,
        idx_t n,
        const uint8_t* codes) {
    const size_t bytes = index.code_size;
    const size_t list_bytes = index.coarse_code_size();
    std::vector<idx_t> lists;
    std::vector<uint8_t> list_codes;
    for_each_block(index, n, 1, [&](idx_t i0, idx_t count) {
        lists.resize(count);
        list_codes.resize(count * bytes);
        for (idx_t i = 0; i < count; i++) {
            const uint8_t* code = codes + (i0 + i) * (list_bytes + bytes);
            lists[i] = index.decode_listno(code);
            memcpy(list_codes.data() + i * bytes, code + list_bytes, bytes);
        }
        transaction.store_codes(count, list_codes.data(), lists.data());
    });
}

LastRows last_rows(
        const faiss::IndexIVF& index,
        idx_t n,
        const idx_t* ids,
        const float* x) {
    FAISS_THROW_IF_NOT_MSG(
            !index.direct_map.no(),
            "update_vectors needs a direct map: call set_direct_map_type()");
    FAISS_THROW_IF_NOT_MSG(
            n == 0 || ids, "update_vectors: ids is a null pointer");
    std::unordered_map<idx_t, idx_t> last;
    for (idx_t i = 0; i < n; i++) {
        FAISS_THROW_IF_NOT_FMT(
                place_of(index.direct_map, ids[i]) >= 0,
                "update_vectors: ids[%" PRId64 "] = %" PRId64
                " is not in the index",
                (int64_t)i,
                (int64_t)ids[i]);
        last[ids[i]] = i;
    }
    LastRows rows{{}, x, {}};
    const bool each_once = last.size() == (size_t)n;
    for (idx_t i = 0; i < n; i++) {
        if (last[ids[i]] == i) {
            rows.ids.push_back(ids[i]);
            if (!each_once) {
                const float* row = x + i * index.d;
                rows.kept.insert(rows.kept.end(), row, row + index.d);
            }
        }
    }
    if (!each_once) {
        rows.x = rows.kept.data();
    }
    return rows;
}

} // namespace faiss_flash
