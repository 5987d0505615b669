#include <eval/curves.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <variant>

#include <eval/methods.h>

namespace faiss_flash {

namespace {

using Field = std::variant<
        std::string CurveRow::*,
        size_t CurveRow::*,
        double CurveRow::*>;

struct Column {
    const char* name;
    Field field;
};

// The one place that knows the columns and their order.
const std::vector<Column>& columns() {
    static const std::vector<Column> all = {
            {"dataset", &CurveRow::dataset},
            {"n", &CurveRow::n},
            {"d", &CurveRow::d},
            {"metric", &CurveRow::metric},
            {"nlist", &CurveRow::nlist},
            {"trainer", &CurveRow::trainer},
            {"policy", &CurveRow::policy},
            {"params", &CurveRow::params},
            {"codec", &CurveRow::codec},
            {"copies", &CurveRow::copies},
            {"bytes_per_vector", &CurveRow::bytes_per_vector},
            {"nprobe", &CurveRow::nprobe},
            {"recall_at_10", &CurveRow::recall_at_10},
            {"dco_raw", &CurveRow::dco_raw},
            {"dco_unique", &CurveRow::dco_unique},
            {"dco_coarse", &CurveRow::dco_coarse},
            {"train_s", &CurveRow::train_s},
            {"add_s", &CurveRow::add_s},
            {"search_s", &CurveRow::search_s},
            {"qps", &CurveRow::qps},
            {"threads", &CurveRow::threads},
            {"engine", &CurveRow::engine},
            {"seed", &CurveRow::seed},
            {"faiss_version", &CurveRow::faiss_version},
            {"commit", &CurveRow::commit}};
    return all;
}

std::string quoted(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == std::string::npos) {
        return text;
    }
    std::string out = "\"";
    for (char c : text) {
        out += c;
        if (c == '"') {
            out += c;
        }
    }
    return out + "\"";
}

struct FieldToText {
    const CurveRow& row;
    std::string operator()(std::string CurveRow::*field) const {
        return quoted(row.*field);
    }
    std::string operator()(size_t CurveRow::*field) const {
        return std::to_string(row.*field);
    }
    std::string operator()(double CurveRow::*field) const {
        char text[32];
        std::snprintf(text, sizeof(text), "%.10g", row.*field);
        return text;
    }
};

struct FieldFromText {
    CurveRow& row;
    const std::string& text;
    /// false if `text` is not a value of the field's type
    bool operator()(std::string CurveRow::*field) const {
        row.*field = text;
        return true;
    }
    bool operator()(size_t CurveRow::*field) const {
        char* end = nullptr;
        row.*field = std::strtoull(text.c_str(), &end, 10);
        return !text.empty() && !*end;
    }
    bool operator()(double CurveRow::*field) const {
        char* end = nullptr;
        row.*field = std::strtod(text.c_str(), &end);
        return !text.empty() && !*end;
    }
};

/// The fields of the record that starts at `at`, which is moved behind its
/// newline. Returns false if the text ends before the record does.
bool next_record(
        const std::string& text,
        size_t& at,
        std::vector<std::string>& fields) {
    fields.assign(1, "");
    bool inside_quotes = false;
    for (; at < text.size(); at++) {
        const char c = text[at];
        if (inside_quotes) {
            if (c != '"') {
                fields.back() += c;
            } else if (at + 1 < text.size() && text[at + 1] == '"') {
                fields.back() += c;
                at++;
            } else {
                inside_quotes = false;
            }
        } else if (c == '"') {
            inside_quotes = true;
        } else if (c == ',') {
            fields.emplace_back();
        } else if (c == '\n') {
            at++;
            return true;
        } else if (c != '\r') {
            fields.back() += c;
        }
    }
    return false;
}

} // namespace

std::string CurveRow::method() const {
    return method_name(trainer, policy);
}

std::string curve_header() {
    std::string line;
    for (const Column& column : columns()) {
        line += (line.empty() ? "" : ",") + std::string(column.name);
    }
    return line;
}

std::string curve_line(const CurveRow& row) {
    std::string line;
    for (const Column& column : columns()) {
        if (&column != &columns().front()) {
            line += ",";
        }
        line += std::visit(FieldToText{row}, column.field);
    }
    return line;
}

std::vector<CurveRow> read_curves(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    if (!file) {
        throw std::runtime_error("cannot read " + path);
    }
    const std::string text = content.str();
    const std::string header = curve_header() + "\n";
    if (text.compare(0, header.size(), header) != 0) {
        throw std::runtime_error(
                path + ": the first line is not the header of curves.csv");
    }
    std::vector<CurveRow> rows;
    std::vector<std::string> fields;
    size_t at = header.size();
    while (next_record(text, at, fields)) {
        const std::string where =
                path + ": record " + std::to_string(rows.size() + 2) + " ";
        if (fields.size() != columns().size()) {
            throw std::runtime_error(
                    where + "has " + std::to_string(fields.size()) +
                    " fields instead of " + std::to_string(columns().size()));
        }
        CurveRow row;
        for (size_t i = 0; i < fields.size(); i++) {
            const Column& column = columns()[i];
            if (!std::visit(FieldFromText{row, fields[i]}, column.field)) {
                throw std::runtime_error(
                        where + "has '" + fields[i] + "' for " + column.name);
            }
        }
        rows.push_back(row);
    }
    return rows;
}

CurveWriter::CurveWriter(
        const std::string& path,
        const std::vector<CurveRow>& rows)
        : path_(path),
          file_(std::fopen(path.c_str(), "wb"), std::fclose) {
    if (!file_) {
        throw std::runtime_error(
                "cannot write " + path + ": " + std::strerror(errno));
    }
    write_line(curve_header());
    for (const CurveRow& row : rows) {
        write_line(curve_line(row));
    }
}

void CurveWriter::add(const CurveRow& row) {
    write_line(curve_line(row));
}

void CurveWriter::write_line(const std::string& line) {
    const std::string text = line + "\n";
    if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() ||
        std::fflush(file_.get()) != 0) {
        throw std::runtime_error(
                "cannot write " + path_ + ": " + std::strerror(errno));
    }
}

} // namespace faiss_flash
