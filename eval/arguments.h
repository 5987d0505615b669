#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <eval/methods.h>

namespace faiss_flash {

/// The command line of flash_eval; `flash_eval --help` explains it.
struct Arguments {
    std::string command; ///< as typed
    std::string dataset;
    std::string dataset_metric = "l2";
    std::string out;
    size_t rows = 0;    ///< 0: all
    size_t queries = 0; ///< 0: all

    std::vector<size_t> nlist; ///< empty: the power of two nearest to √n
    std::vector<std::string> methods = {
            "faiss",
            "kmeans+air",
            "gmm+nearest",
            "gmm+responsibility",
            "gmm+air"};
    std::vector<std::string> codecs = {"flat"};
    std::vector<size_t> nprobe; ///< empty: see automatic_nprobe()
    std::string metric = "l2";
    size_t k = 10;

    int niter = 10;
    int em_niter = 90;
    double em_tolerance = 1e-4;
    std::string covariance = "spherical";
    int max_points_per_centroid = 256;
    PolicyOptions policy;
    double rerank = 10;

    size_t seeds = 1;
    int first_seed = 1234; ///< FAISS's own
    std::string engine = "auto";
    int threads = 0; ///< 0: as OpenMP decides
    bool append = false;
};

/** Read the command line.
 *
 * @return an exit code if the program has nothing left to do (help or version
 *         were printed). Throws std::invalid_argument or CLI::Error with one
 *         line for the user.
 */
std::optional<int> parse_arguments(
        int argc,
        const char* const* argv,
        Arguments& arguments);

/// The power of two nearest to √n on a logarithmic scale, at least 1.
size_t automatic_nlist(size_t n);

/// 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, ...: powers of the fourth root
/// of 2, rounded, up to nlist / 3. Half as many leave an error of several per
/// cent when the work for one recall is interpolated.
std::vector<size_t> automatic_nprobe(size_t nlist);

} // namespace faiss_flash
