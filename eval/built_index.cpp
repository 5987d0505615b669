#include <eval/built_index.h>

#include <algorithm>

#include <datasets/progress.h>
#include <eval/stopwatch.h>
#include <eval/train_pq.h>

namespace faiss_flash {

namespace {

/// What build_index() was called with.
struct Order {
    const Method& method;
    const AssignmentPolicy& policy;
    const Codec& codec;
    const TrainingOptions& options;
    TrainedQuantizer& trained;
    size_t n;
    const float* x;
};

/// Train the codes (the quantizer is full already); returns the seconds.
double train_codes(faiss::IndexIVF& index, const Order& order) {
    Stopwatch watch;
    index.train(order.n, order.x);
    return watch.seconds();
}

double train_codes(faiss::IndexIVFPQ& index, const Order& order) {
    auto& known = order.trained.product_quantizers;
    auto found = known.find(order.codec.storage);
    if (found == known.end()) {
        const TrainedPQ trained =
                train_pq(index, order.options, order.n, order.x);
        found = known.emplace(order.codec.storage, trained).first;
    }
    index.pq = found->second.pq;
    index.is_trained = true;
    index.precompute_table();
    return found->second.seconds;
}

/// One codec's stock class `Stock` or our class `Flash`, trained, not filled.
template <class Stock, class Flash, class... Args>
void make_index(BuiltIndex& built, const Order& order, const Args&... args) {
    std::unique_ptr<Stock> index;
    if (order.method.stock) {
        index = std::make_unique<Stock>(built.quantizer.get(), args...);
    } else {
        auto flash = std::make_unique<Flash>(built.quantizer.get(), args...);
        flash->trainer = order.method.trainer;
        flash->policy = order.policy;
        flash->engine = order.options.engine;
        flash->variances = order.trained.variances;
        flash->mixing_weights = order.trained.mixing_weights;
        built.counters = &flash->counters;
        index = std::move(flash);
    }
    built.code_train_s = train_codes(*index, order);
    built.ivf = std::move(index);
}

void fill(
        BuiltIndex& built,
        const std::string& label,
        size_t n,
        const float* x) {
    const size_t block = 65536;
    ProgressBar progress(label, static_cast<double>(n));
    Stopwatch watch;
    for (size_t i0 = 0; i0 < n; i0 += block) {
        const size_t count = std::min(block, n - i0);
        built.ivf->add(count, x + i0 * built.ivf->d);
        progress.update(static_cast<double>(i0 + count));
    }
    built.add_s = watch.seconds();
}

} // namespace

double BuiltIndex::bytes_per_vector(const Codec& codec) const {
    const double entry = static_cast<double>(ivf->code_size + sizeof(idx_t));
    const double raw = codec.rerank > 0
            ? static_cast<double>(ivf->d * sizeof(float))
            : 0.0;
    return copies * entry + raw;
}

BuiltIndex build_index(
        const Method& method,
        const AssignmentPolicy& policy,
        const Codec& codec,
        const TrainingOptions& options,
        TrainedQuantizer& trained,
        size_t n,
        size_t d,
        const float* x) {
    BuiltIndex built;
    built.quantizer = std::make_unique<CountingQuantizer>(d, options.metric);
    built.quantizer->add(options.nlist, trained.centroids.data());
    const size_t nlist = options.nlist;
    const faiss::MetricType metric = options.metric;
    const Order order{method, policy, codec, options, trained, n, x};
    switch (codec.kind) {
        case Codec::Kind::flat:
            make_index<faiss::IndexIVFFlat, IndexIVFFlatFlash>(
                    built, order, d, nlist, metric);
            break;
        case Codec::Kind::pq:
            make_index<faiss::IndexIVFPQ, IndexIVFPQFlash>(
                    built, order, d, nlist, codec.pq_m, size_t(8), metric);
            break;
        case Codec::Kind::sq8:
            make_index<
                    faiss::IndexIVFScalarQuantizer,
                    IndexIVFScalarQuantizerFlash>(
                    built,
                    order,
                    d,
                    nlist,
                    faiss::ScalarQuantizer::QT_8bit,
                    metric);
            break;
    }
    fill(built, "adding to " + method.name() + " " + codec.storage, n, x);

    size_t entries = 0;
    for (size_t list = 0; list < nlist; list++) {
        entries += built.ivf->invlists->list_size(list);
    }
    built.copies = static_cast<double>(entries) / static_cast<double>(n);
    return built;
}

} // namespace faiss_flash
