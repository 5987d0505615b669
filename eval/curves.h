#pragma once

#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace faiss_flash {

/// One measurement: a row of curves.csv. The columns are explained in
/// eval/README.md; their names and order are those of curve_columns().
struct CurveRow {
    std::string dataset;
    size_t n = 0, d = 0;
    std::string metric;
    size_t nlist = 0;
    std::string trainer, policy, params, codec;
    double copies = 0;
    double bytes_per_vector = 0;
    size_t nprobe = 0;
    double recall_at_10 = 0;
    double dco_raw = 0, dco_unique = 0, dco_coarse = 0; ///< per query
    double train_s = 0, add_s = 0, search_s = 0;
    double qps = 0;
    size_t threads = 0;
    std::string engine;
    size_t seed = 0;
    std::string faiss_version, commit;

    std::string method() const; ///< "faiss" or "TRAINER+POLICY"
};

/// The first line of curves.csv.
std::string curve_header();

/// One line without its newline; fields that need it are quoted (RFC 4180).
std::string curve_line(const CurveRow& row);

/// Reads a file written by CurveWriter. A last line without a newline, left
/// by a process that died while writing, is ignored. Throws
/// std::runtime_error naming the file and line for anything else that is not
/// a row.
std::vector<CurveRow> read_curves(const std::string& path);

/// Appends rows to a file; every row is on its way to the disk when add()
/// returns, so that whatever ends the program leaves whole rows.
class CurveWriter {
   public:
    /// Starts the file with the header and `rows`. Throws
    /// std::runtime_error.
    explicit CurveWriter(
            const std::string& path,
            const std::vector<CurveRow>& rows = {});

    void add(const CurveRow& row);

   private:
    void write_line(const std::string& line);

    std::string path_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

} // namespace faiss_flash
