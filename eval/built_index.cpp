#include <eval/built_index.h>

#include <algorithm>

#include <datasets/progress.h>
#include <eval/stopwatch.h>

namespace faiss_flash {

namespace {

/// What makes an index of ours more than its FAISS base class.
struct FlashParts {
    const AssignmentPolicy& policy;
    const TrainedQuantizer& trained;
    const std::string& engine;
};

template <class Index>
void set_codec_seed(Index&, int) {}
void set_codec_seed(faiss::IndexIVFPQ& index, int seed) {
    index.pq.cp.seed = seed;
}

/// One codec's stock class `Stock` or our class `Flash`, trained, not filled.
template <class Stock, class Flash, class... Args>
void make_index(
        BuiltIndex& built,
        const Method& method,
        const FlashParts& parts,
        const TrainingOptions& options,
        size_t n,
        const float* x,
        const Args&... args) {
    std::unique_ptr<Stock> index;
    Flash* flash = nullptr;
    if (method.stock) {
        index = std::make_unique<Stock>(built.quantizer.get(), args...);
    } else {
        auto ours = std::make_unique<Flash>(built.quantizer.get(), args...);
        flash = ours.get();
        flash->trainer = method.trainer;
        flash->policy = parts.policy;
        flash->engine = parts.engine;
        built.counters = &flash->counters;
        index = std::move(ours);
    }
    set_codec_seed(*index, options.seed);
    Stopwatch watch;
    // The quantizer is full already, so this trains the codes.
    index->train(n, x);
    built.code_train_s = watch.seconds();
    if (flash) {
        flash->variances = parts.trained.variances;
        flash->mixing_weights = parts.trained.mixing_weights;
    }
    built.ivf = std::move(index);
}

void fill(BuiltIndex& built, const std::string& label, size_t n, const float* x) {
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

BuiltIndex build_index(
        const Method& method,
        const AssignmentPolicy& policy,
        const Codec& codec,
        const TrainingOptions& options,
        const TrainedQuantizer& trained,
        size_t n,
        size_t d,
        const float* x) {
    BuiltIndex built;
    built.quantizer =
            std::make_unique<CountingQuantizer>(d, options.metric);
    built.quantizer->add(options.nlist, trained.centroids.data());
    const FlashParts parts{policy, trained, options.engine};
    switch (codec.kind) {
        case Codec::Kind::flat:
            make_index<faiss::IndexIVFFlat, IndexIVFFlatFlash>(
                    built,
                    method,
                    parts,
                    options,
                    n,
                    x,
                    d,
                    options.nlist,
                    options.metric);
            break;
        case Codec::Kind::pq:
            make_index<faiss::IndexIVFPQ, IndexIVFPQFlash>(
                    built,
                    method,
                    parts,
                    options,
                    n,
                    x,
                    d,
                    options.nlist,
                    codec.pq_m,
                    size_t(8),
                    options.metric);
            break;
        case Codec::Kind::sq8:
            make_index<
                    faiss::IndexIVFScalarQuantizer,
                    IndexIVFScalarQuantizerFlash>(
                    built,
                    method,
                    parts,
                    options,
                    n,
                    x,
                    d,
                    options.nlist,
                    faiss::ScalarQuantizer::QT_8bit,
                    options.metric);
            break;
    }
    fill(built, "adding to " + method.name() + " " + codec.name, n, x);

    size_t entries = 0;
    for (size_t list = 0; list < options.nlist; list++) {
        entries += built.ivf->invlists->list_size(list);
    }
    built.copies = static_cast<double>(entries) / static_cast<double>(n);
    built.bytes_per_vector = built.copies *
            static_cast<double>(built.ivf->code_size + sizeof(idx_t));
    if (codec.rerank > 0) {
        built.bytes_per_vector += static_cast<double>(d * sizeof(float));
    }
    return built;
}

} // namespace faiss_flash
