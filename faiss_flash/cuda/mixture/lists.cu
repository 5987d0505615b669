#include <cmath>

#include <faiss_flash/cuda/assign_launch.h>
#include <faiss_flash/cuda/mixture/list.h>
#include <faiss_flash/cuda/mixture/lists.cuh>
#include <faiss_flash/cuda/tensor_map.h>

namespace faiss_flash {

float mixture_range(int k) {
    return std::log(4 * k / mixture_drop);
}

DeviceMixture::DeviceMixture(int k, cudaStream_t stream)
        : k_(k),
          components_(k, stream),
          columns_(k + assign_columns, stream),
          slack_(k + assign_columns, stream),
          bounds_(1, stream) {}

void DeviceMixture::set(const Model& model, cudaStream_t stream) {
    const std::vector<double> scales = log_scales(model);
    host_.resize(k_);
    for (int c = 0; c < k_; c++) {
        host_[c] = {scales[c], 0.5 / model.variances[c]};
    }
    FAISS_FLASH_CUDA_CHECK(cudaMemcpyAsync(
            components_.get(),
            host_.data(),
            k_ * sizeof(ComponentTerms),
            cudaMemcpyHostToDevice,
            stream));
}

ListTerms DeviceMixture::terms_for(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        float scale,
        cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(launch_list_terms(
            rows, means, components_.get(), true, scale, terms(), stream));
    return terms();
}

ListTerms DeviceMixture::terms_for_centroids(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        bool l2,
        cudaStream_t stream) {
    FAISS_FLASH_CUDA_CHECK(launch_list_terms(
            rows, means, nullptr, l2, 1, terms(), stream));
    return terms();
}

RowLists::RowLists(int64_t rows, cudaStream_t stream)
        : listed_(rows * list_capacity, stream),
          counts_(rows * list_parts, stream),
          limits_(rows, stream) {}

size_t RowLists::bytes(int64_t rows) {
    return rows *
            (list_capacity * sizeof(Listed) + list_parts + sizeof(RowLimit));
}

ListOutput RowLists::lists() const {
    return {listed_.get(), counts_.get()};
}

namespace {

ListInput list_input(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const RowLimit* limits) {
    ListInput in;
    in.n = rows.n;
    in.d_padded = rows.d_padded;
    in.k = means.k;
    in.k_padded = means.k_padded;
    in.rows = rows.halves;
    in.means = means.halves;
    in.columns = terms.columns;
    in.limits = limits;
    return in;
}

/// Threads that share a row in this kernel, and so parts of its list.
int parts_of(AssignKernel kernel) {
    return kernel == AssignKernel::sm80 ? 8 : 4;
}

/// Output: what is listed, as bits or not, or bests of groups.
template <class Output>
void launch_listing(
        AssignKernel kernel,
        const ListInput& in,
        const Output& out,
        const DeviceInfo& device,
        cudaStream_t stream) {
    if (kernel == AssignKernel::sm80) {
        FAISS_FLASH_CUDA_CHECK(launch_list_sm80(in, out, stream));
        return;
    }
    const auto launch = kernel == AssignKernel::sm90
            ? launch_list_sm90<Output>
            : launch_list_sm90_deep<Output>;
    FAISS_FLASH_CUDA_CHECK(launch(
            tensor_map(in.rows, in.n, in.d_padded, assign_sm90_box_rows),
            tensor_map(
                    in.means,
                    in.k_padded,
                    in.d_padded,
                    assign_sm90_box_columns),
            in,
            out,
            device.multiprocessors,
            stream));
}

} // namespace

void RowLists::fill(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const DeviceInfo& device,
        cudaStream_t stream) {
    const AssignKernel kernel =
            choose_assign_kernel(device.capability, rows.d_padded);
    parts_ = parts_of(kernel);
    launch_listing(
            kernel,
            list_input(rows, means, terms, limits_.get()),
            lists(),
            device,
            stream);
}

void RowLists::fill_groups(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        float* group_best,
        const DeviceInfo& device,
        cudaStream_t stream) const {
    // groups that do not exist stay NaN
    FAISS_FLASH_CUDA_CHECK(cudaMemsetAsync(
            group_best,
            0xff,
            rows.n * list_groups_per_row * sizeof(float),
            stream));
    const AssignKernel kernel =
            choose_assign_kernel(device.capability, rows.d_padded);
    ListInput in = list_input(rows, means, terms, limits_.get());
    in.groups = ListGroups::of(
            in.k_padded / assign_columns, parts_of(kernel));
    launch_listing(kernel, in, GroupOutput{group_best}, device, stream);
}

void fill_masks(
        const PreparedRows& rows,
        const PreparedCentroids& means,
        const ListTerms& terms,
        const RowLimit* limits,
        const MaskOutput& out,
        const DeviceInfo& device,
        cudaStream_t stream) {
    launch_listing(
            choose_assign_kernel(device.capability, rows.d_padded),
            list_input(rows, means, terms, limits),
            out,
            device,
            stream);
}

} // namespace faiss_flash
