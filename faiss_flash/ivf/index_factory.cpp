#include <faiss_flash/ivf/index_factory.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <typeinfo>
#include <vector>

#include <faiss/IndexIVFPQR.h>
#include <faiss/index_factory.h>

#include <faiss_flash/ivf/IndexUnique.h>
#include <faiss_flash/ivf/factory_options.h>
#include <faiss_flash/ivf/wrapped_index.h>

namespace faiss_flash {

namespace {

/*************************************************************
 * The description: FAISS's part and the options in it
 *************************************************************/

struct Description {
    std::string text;       // as given
    std::string stock;      // without the options
    size_t options_at = 0;  // where they begin in the text; 0: none
    size_t options_end = 0; // just behind their ')'
    FlashOptions options;

    /// A place in `stock` as a place in `text`.
    size_t place(size_t stock_at) const {
        return options_at && stock_at >= options_at - 1
                ? stock_at + (options_end - (options_at - 1))
                : stock_at;
    }
};

size_t digits_end(const std::string& text, size_t at) {
    while (at < text.size() && isdigit((unsigned char)text[at])) {
        at++;
    }
    return at;
}

/// FAISS divides by some numbers without looking, and reads all as int.
void check_numbers(const std::string& text) {
    for (size_t at = 0; at < text.size(); at++) {
        const size_t end = digits_end(text, at);
        if (end == at) {
            continue;
        }
        if (end - at > 9) {
            throw DescriptionError(at, "expected a number of at most 9 digits");
        }
        const bool fraction = (at > 0 && strchr(".-", text[at - 1])) ||
                (end < text.size() && text[end] == '.');
        const bool sq0 = at > 1 && text.compare(at - 2, 2, "SQ") == 0;
        if (!fraction && !sq0 && text.find_first_not_of('0', at) >= end) {
            throw DescriptionError(at, "expected a number above 0");
        }
        at = end;
    }
}

/// Where the group that opens at `at` closes.
size_t closing(const std::string& text, size_t at) {
    int depth = 0;
    for (size_t i = at; i < text.size(); i++) {
        depth += (text[i] == '(') - (text[i] == ')');
        if (depth == 0) {
            return i;
        }
    }
    throw DescriptionError(at, "this '(' is not closed");
}

/// Options begin with a small letter, names of FAISS's with a capital one.
bool is_options(const std::string& text, size_t open) {
    const size_t at = text.find_first_not_of(' ', open + 1);
    return at == std::string::npos || islower((unsigned char)text[at]) ||
            text[at] == ')';
}

Description parse(const std::string& text) {
    Description description;
    description.text = text;
    if (text.size() > 1000) {
        throw DescriptionError(
                1000, "expected a description of at most 1000 characters");
    }
    size_t nlist = 0; // of the IVF part that `at` is in; 0: in another part
    for (size_t at = 0, part = 0; at < text.size(); at++) {
        if (at == part) {
            const size_t end = digits_end(text, at + 3);
            nlist = text.compare(at, 3, "IVF") == 0 && end > at + 3 &&
                            end < at + 13
                    ? std::strtoull(&text[at + 3], nullptr, 10)
                    : 0;
            if (nlist == 0 && end > at + 3 && text.compare(at, 3, "IVF") == 0) {
                check_numbers(text);
            }
        }
        if (text[at] == ')') {
            throw DescriptionError(at, "this ')' closes nothing");
        } else if (text[at] == ',') {
            part = at + 1;
        } else if (text[at] == '(' && !is_options(text, at)) {
            const size_t end = closing(text, at);
            for (size_t i = at + 1; i < end; i++) {
                if (text[i] == '(' && is_options(text, i)) {
                    throw DescriptionError(
                            i + 1, "options belong to the outermost IVF part");
                }
            }
            at = end;
        } else if (text[at] == '(') {
            if (nlist == 0) {
                throw DescriptionError(
                        at + 1, "options belong to an IVF part, as IVF1024");
            }
            if (description.options_at) {
                throw DescriptionError(at + 1, "second options");
            }
            description.options_at = at + 1;
            size_t end = at + 1;
            description.options = parse_options(text, end, nlist);
            description.options_end = end + 1;
            if (end + 1 < text.size() && text[end + 1] != ',') {
                throw DescriptionError(end + 1, "expected ','");
            }
            if (end + 1 == text.size()) {
                throw DescriptionError(
                        end + 1, "expected ',' and the codes, as ',Flat'");
            }
            nlist = 0;
            at = end;
        }
    }
    description.stock = text;
    if (description.options_at) {
        description.stock.erase(
                description.options_at - 1,
                description.options_end - (description.options_at - 1));
    }
    try {
        check_numbers(description.stock);
    } catch (const DescriptionError& e) {
        throw DescriptionError(description.place(e.at), e.what());
    }
    return description;
}

/*************************************************************
 * FAISS's part
 *************************************************************/

bool faiss_takes(int d, const std::string& stock, faiss::MetricType metric) {
    try {
        delete faiss::index_factory(d, stock.c_str(), metric);
        return true;
    } catch (const std::exception&) {
        return false;
    }
}

/// Where the first part begins that FAISS takes in no continuation.
size_t first_wrong_part(
        int d,
        const std::string& stock,
        faiss::MetricType metric) {
    size_t begin = 0;
    for (size_t at = 0; at <= stock.size(); at++) {
        if (at < stock.size() && stock[at] == '(') {
            at = closing(stock, at);
        } else if (at == stock.size() || stock[at] == ',') {
            const std::string part = stock.substr(0, at);
            if (!faiss_takes(d, part, metric) &&
                (at == stock.size() ||
                 (!faiss_takes(d, part + ",Flat", metric) &&
                  !faiss_takes(d, part + ",SH", metric)))) {
                return begin;
            }
            begin = at + 1;
        }
    }
    return 0;
}

std::unique_ptr<faiss::Index> make_stock(
        int d,
        const Description& description,
        faiss::MetricType metric) {
    const std::string& stock = description.stock;
    std::string message;
    try {
        return std::unique_ptr<faiss::Index>(
                faiss::index_factory(d, stock.c_str(), metric));
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& e) {
        message = plain_message(e);
    }
    throw DescriptionError(
            description.place(first_wrong_part(d, stock, metric)),
            "FAISS takes no such part here: " + message);
}

/*************************************************************
 * From FAISS's IVF class to ours
 *************************************************************/

template <class Base, class Flash>
faiss::Index* converted(faiss::IndexIVF* ivf, const FlashOptions& options) {
    if (typeid(*ivf) != typeid(Base)) {
        return nullptr;
    }
    auto flash = std::make_unique<Flash>(*static_cast<Base*>(ivf));
    static_cast<FlashOptions&>(*flash) = options;
    delete ivf;
    return flash.release();
}

/// Ours in the place of `ivf`, which it takes over.
faiss::Index* convert(faiss::IndexIVF* ivf, const Description& description) {
    const FlashOptions& options = description.options;
    if (auto* quantizer = dynamic_cast<faiss::IndexIVF*>(ivf->quantizer)) {
        // or it could not say what its centroids are
        quantizer->make_direct_map();
    }
    if (auto* flat = converted<faiss::IndexIVFFlat, IndexIVFFlatFlash>(
                ivf, options)) {
        return flat;
    }
    if (auto* pq =
                converted<faiss::IndexIVFPQ, IndexIVFPQFlash>(ivf, options)) {
        return pq;
    }
    if (auto* sq = converted<
                faiss::IndexIVFScalarQuantizer,
                IndexIVFScalarQuantizerFlash>(ivf, options)) {
        return sq;
    }
    if (!description.options_at) {
        return ivf;
    }
    if (options.policy.list_limit() > 1 &&
        (dynamic_cast<const faiss::IndexIVFPQR*>(ivf) ||
         dynamic_cast<const faiss::IndexIVFFlatDedup*>(ivf))) {
        throw DescriptionError(
                description.options_at,
                "these codes keep one record per vector: expected the policy "
                "nearest");
    }
    auto unique = std::make_unique<IndexUnique>(ivf);
    unique->own_fields = true;
    static_cast<FlashOptions&>(*unique) = options;
    return unique.release();
}

void convert_inside(
        std::unique_ptr<faiss::Index>& index,
        const Description& description) {
    faiss::Index* outer = index.get();
    faiss::Index** place = nullptr;
    while (faiss::Index** inner = wrapped_index(*outer)) {
        place = inner;
        outer = *inner;
    }
    auto* ivf = dynamic_cast<faiss::IndexIVF*>(outer);
    // IMI's 2^(2b) centroids are not for policies that compare with each
    const bool possible = ivf && ivf->quantizer_trains_alone != 1 &&
            (ivf->metric_type == faiss::METRIC_L2 ||
             ivf->metric_type == faiss::METRIC_INNER_PRODUCT);
    if (!possible && description.options_at) {
        throw DescriptionError(
                description.options_at,
                "options need an IVF index whose quantizer does not train "
                "alone and a metric that is METRIC_L2 or "
                "METRIC_INNER_PRODUCT");
    }
    if (!possible) {
        return;
    }
    if (place) {
        *place = nullptr; // never owned twice
        try {
            *place = convert(ivf, description);
        } catch (...) {
            *place = ivf;
            throw;
        }
    } else {
        (void)index.release(); // never owned twice
        try {
            index.reset(convert(ivf, description));
        } catch (...) {
            index.reset(ivf);
            throw;
        }
    }
}

} // namespace

faiss::Index* index_factory(
        int d,
        const char* description,
        faiss::MetricType metric) {
    FAISS_THROW_IF_NOT_FMT(d > 0, "index_factory: d = %d should be above 0", d);
    FAISS_THROW_IF_NOT_MSG(
            description, "index_factory: description is a null pointer");
    try {
        const Description parsed = parse(description);
        std::unique_ptr<faiss::Index> index = make_stock(d, parsed, metric);
        convert_inside(index, parsed);
        return index.release();
    } catch (const DescriptionError& e) {
        std::string shown(description);
        shown.resize(std::min<size_t>(shown.size(), 1000));
        for (char& c : shown) {
            c = isprint((unsigned char)c) ? c : '?';
        }
        throw faiss::FaissException(
                "index_factory: " + std::string(e.what()) + ", at character " +
                std::to_string(e.at + 1) + " of\n  " + shown + "\n  " +
                std::string(e.at, ' ') + "^");
    }
}

} // namespace faiss_flash
