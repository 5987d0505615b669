#include <faiss_flash/io/layout_reader.h>

namespace faiss_flash {

namespace {

TransformDims transform_end(LayoutReader& in, bool* trained) {
    const TransformDims dims{in.get<int>(), in.get<int>()};
    *trained = in.get_bool("is_trained");
    FAISS_THROW_IF_NOT_FMT(
            dims.in > 0 && dims.out > 0,
            "a transform from d = %d to d = %d",
            dims.in,
            dims.out);
    return dims;
}

TransformDims square(LayoutReader& in, const char* what) {
    bool trained;
    const TransformDims dims = transform_end(in, &trained);
    FAISS_THROW_IF_NOT_FMT(
            dims.in == dims.out,
            "%s from d = %d to d = %d",
            what,
            dims.in,
            dims.out);
    return dims;
}

TransformDims linear(LayoutReader& in) {
    const bool have_bias = in.get_bool("have_bias");
    const uint64_t a = in.vector("A", sizeof(float));
    const uint64_t b = in.vector("b", sizeof(float));
    bool trained;
    const TransformDims dims = transform_end(in, &trained);
    FAISS_THROW_IF_NOT_FMT(
            !trained ||
                    (a == (uint64_t)dims.in * dims.out &&
                     (!have_bias || b == (uint64_t)dims.out)),
            "a linear transform from d = %d to d = %d with a matrix of "
            "%llu and a bias of %llu numbers",
            dims.in,
            dims.out,
            ull(a),
            ull(b));
    return dims;
}

TransformDims remap(LayoutReader& in) {
    const uint64_t n = in.count("map", sizeof(int));
    int least = 0, most = -1;
    for (uint64_t i = 0; i < n; i++) {
        const auto from = in.get<int>();
        least = std::min(least, from);
        most = std::max(most, from);
    }
    bool trained;
    const TransformDims dims = transform_end(in, &trained);
    FAISS_THROW_IF_NOT_MSG(
            n == (uint64_t)dims.out && least >= -1 && most < dims.in,
            "a map of dimensions that leads outside");
    return dims;
}

TransformDims transform(LayoutReader& in, int depth) {
    FAISS_THROW_IF_NOT_MSG(depth < 2, "transforms nested too deeply");
    const auto fourcc = in.get<uint32_t>();
    if (in.is(fourcc, "Pcam")) {
        in.skip(2 * sizeof(float)); // eigen_power, epsilon
        in.get_bool("random_rotation");
        in.skip(sizeof(int)); // balanced_bins
        in.vector("mean", sizeof(float));
        in.vector("eigenvalues", sizeof(float));
        in.vector("PCAMat", sizeof(float));
        return linear(in);
    }
    if (in.is(fourcc, "Viqm")) {
        in.skip(2 * sizeof(int)); // max_iter, seed
        return linear(in);
    }
    if (in.is(fourcc, "LTra") || in.is(fourcc, "rrot")) {
        return linear(in);
    }
    if (in.is(fourcc, "RmDT")) {
        return remap(in);
    }
    if (in.is(fourcc, "VNrm")) {
        in.skip(sizeof(float)); // norm
        return square(in, "a normalisation");
    }
    if (in.is(fourcc, "VCnt")) {
        const uint64_t mean = in.vector("mean", sizeof(float));
        const TransformDims dims = square(in, "a centring");
        FAISS_THROW_IF_NOT(mean == (uint64_t)dims.in);
        return dims;
    }
    if (in.is(fourcc, "Viqt")) {
        const uint64_t mean = in.vector("mean", sizeof(float));
        in.get_bool("do_pca");
        transform(in, depth + 1);
        const TransformDims then = transform(in, depth + 1);
        bool trained;
        const TransformDims dims = transform_end(in, &trained);
        FAISS_THROW_IF_NOT_MSG(
                !trained ||
                        (mean == (uint64_t)dims.in && then.in == dims.in &&
                         then.out == dims.out),
                "an ITQ transform whose parts do not fit");
        return dims;
    }
    in.unknown("a transform", fourcc);
}

} // namespace

TransformDims check_transform_layout(LayoutReader& in) {
    return transform(in, 0);
}

} // namespace faiss_flash
