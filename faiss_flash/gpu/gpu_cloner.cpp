#include <faiss_flash/gpu/gpu_cloner.h>

#include <cstring>
#include <memory>

#include <faiss/IndexFlat.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexShards.h>

#include <faiss_flash/IndexIVFFlash.h>
#include <faiss_flash/flash_index_io.h>
#include <faiss_flash/gpu/GpuIndexUnique.h>

namespace faiss_flash {

namespace {

/// fn(index as its own class) if it is one of ours; whether it was.
template <class Fn>
bool with_flash_index(const faiss::Index* index, Fn&& fn) {
    if (auto* flat = dynamic_cast<const IndexIVFFlatFlash*>(index)) {
        fn(*flat);
    } else if (auto* pq = dynamic_cast<const IndexIVFPQFlash*>(index)) {
        fn(*pq);
    } else if (
            auto* sq =
                    dynamic_cast<const IndexIVFScalarQuantizerFlash*>(index)) {
        fn(*sq);
    } else {
        return false;
    }
    return true;
}

/// A copy without lists and quantizer.
template <class Flash>
std::unique_ptr<Flash> without_lists(const Flash& flash) {
    auto copy = std::make_unique<Flash>(flash);
    copy->quantizer = nullptr;
    copy->invlists = nullptr;
    copy->own_fields = copy->own_invlists = false;
    copy->direct_map.clear();
    const Model model = flash.model();
    copy->variances = model.variances;
    copy->mixing_weights = model.weights;
    return copy;
}

class ToGpu : public faiss::gpu::ToGpuCloner {
   public:
    using ToGpuCloner::ToGpuCloner;

    faiss::Index* clone_Index(const faiss::Index* index) override {
        std::unique_ptr<GpuIndexUnique> made;
        const bool ours = with_flash_index(index, [&](const auto& flash) {
            FAISS_THROW_IF_NOT_MSG(
                    flash.is_trained,
                    "the index is not trained: train and fill it on the CPU");
            made = std::make_unique<GpuIndexUnique>(
                    provider,
                    device,
                    flash,
                    clone_quantizer(flash.quantizer),
                    without_lists(flash));
        });
        return ours ? made.release() : ToGpuCloner::clone_Index(index);
    }

   private:
    std::unique_ptr<faiss::Index> clone_quantizer(const faiss::Index* index) {
        faiss::gpu::GpuClonerOptions options = *this;
        options.useFloat16 = useFloat16CoarseQuantizer;
        ToGpuCloner cloner(provider, device, options);
        try {
            return std::unique_ptr<faiss::Index>(cloner.clone_Index(index));
        } catch (const faiss::FaissException& e) {
            // FAISS's words for a kind of index that it has on the CPU alone
            if (!allowCpuCoarseQuantizer ||
                !strstr(e.what(), "not implemented on GPU")) {
                throw;
            }
        }
        return std::unique_ptr<faiss::Index>(faiss_flash::clone_index(index));
    }
};

class ToCpu : public faiss::gpu::ToCPUCloner {
   public:
    faiss::Index* clone_Index(const faiss::Index* index) override {
        auto* unique = dynamic_cast<const GpuIndexUnique*>(index);
        if (!unique) {
            return ToCPUCloner::clone_Index(index);
        }
        faiss::Index* made = nullptr;
        with_flash_index(unique->cpu_part.get(), [&](const auto& flash) {
            made = restore(*unique, flash);
        });
        return made;
    }

   private:
    template <class Flash>
    Flash* restore(const GpuIndexUnique& gpu, const Flash& cpu_part) {
        auto index = std::make_unique<Flash>(cpu_part);
        index->nprobe = gpu.nprobe;
        index->quantizer = clone_Index(gpu.quantizer);
        index->own_fields = true;
        index->invlists =
                new faiss::ArrayInvertedLists(index->nlist, index->code_size);
        index->own_invlists = true;
        gpu.copy_lists_to(*index->invlists);
        return index.release();
    }
};

/// The entries of ids with id mod n = i.
std::unique_ptr<faiss::Index> shard_of(
        const faiss::IndexIVF& index,
        idx_t n,
        idx_t i) {
    std::unique_ptr<faiss::Index> part(faiss_flash::clone_index(&index));
    part->reset();
    index.copy_subset_to(
            dynamic_cast<faiss::IndexIVF&>(*part),
            faiss::InvertedLists::SUBSET_TYPE_ID_MOD,
            n,
            i);
    return part;
}

class ToGpus : public faiss::Cloner {
   public:
    ToGpus(const std::vector<faiss::gpu::GpuResourcesProvider*>& providers,
           const std::vector<int>& devices,
           const faiss::gpu::GpuMultipleClonerOptions& options)
            : providers_(providers),
              devices_(devices),
              options_(options) {}

    faiss::Index* clone_Index(const faiss::Index* index) override {
        faiss::Index* made = nullptr;
        const bool ours = with_flash_index(index, [&](const auto& flash) {
            made = options_.shard ? shards(flash) : replicas(flash);
        });
        if (ours) {
            return made;
        }
        if (dynamic_cast<const faiss::IndexIVF*>(index) ||
            dynamic_cast<const faiss::IndexFlat*>(index)) {
            return faiss::gpu::index_cpu_to_gpu_multiple(
                    providers_, devices_, index, &options_);
        }
        return Cloner::clone_Index(index); // wrappers: what they hold
    }

   private:
    faiss::Index* clone_to(size_t i, const faiss::Index& index) const {
        return ToGpu(providers_[i], devices_[i], options_).clone_Index(&index);
    }

    faiss::Index* replicas(const faiss::IndexIVF& index) const {
        auto all = std::make_unique<faiss::IndexReplicas>(index.d);
        all->own_indices = true;
        for (size_t i = 0; i < devices_.size(); i++) {
            all->addIndex(clone_to(i, index));
        }
        return all.release();
    }

    faiss::Index* shards(const faiss::IndexIVF& index) const {
        FAISS_THROW_IF_NOT_FMT(
                options_.shard_type == 1,
                "shard_type = %d should be 1: it alone keeps the copies of a "
                "vector together",
                options_.shard_type);
        // threaded, ids as they are
        auto all = std::make_unique<faiss::IndexShards>(index.d, true, false);
        all->own_indices = true;
        for (size_t i = 0; i < devices_.size(); i++) {
            all->add_shard(clone_to(i, *shard_of(index, devices_.size(), i)));
        }
        return all.release();
    }

    std::vector<faiss::gpu::GpuResourcesProvider*> providers_;
    std::vector<int> devices_;
    faiss::gpu::GpuMultipleClonerOptions options_;
};

} // namespace

faiss::Index* index_cpu_to_gpu(
        faiss::gpu::GpuResourcesProvider* provider,
        int device,
        const faiss::Index* index,
        const faiss::gpu::GpuClonerOptions* options) {
    FAISS_THROW_IF_NOT_MSG(index, "index_cpu_to_gpu: index is a null pointer");
    return ToGpu(provider,
                 device,
                 options ? *options : faiss::gpu::GpuClonerOptions())
            .clone_Index(index);
}

faiss::Index* index_cpu_to_gpu_multiple(
        const std::vector<faiss::gpu::GpuResourcesProvider*>& providers,
        const std::vector<int>& devices,
        const faiss::Index* index,
        const faiss::gpu::GpuMultipleClonerOptions* options) {
    FAISS_THROW_IF_NOT_MSG(
            index, "index_cpu_to_gpu_multiple: index is a null pointer");
    FAISS_THROW_IF_NOT_FMT(
            !devices.empty() && devices.size() == providers.size(),
            "index_cpu_to_gpu_multiple: %zd devices should be as many as "
            "resource providers (%zd), and at least 1",
            devices.size(),
            providers.size());
    return ToGpus(providers,
                  devices,
                  options ? *options : faiss::gpu::GpuMultipleClonerOptions())
            .clone_Index(index);
}

faiss::Index* index_gpu_to_cpu(const faiss::Index* index) {
    FAISS_THROW_IF_NOT_MSG(index, "index_gpu_to_cpu: index is a null pointer");
    return ToCpu().clone_Index(index);
}

} // namespace faiss_flash
