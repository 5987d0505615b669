#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include <faiss_flash/IndexIVFFlash.h>

namespace faiss_flash {

/// What is wrong with a description, and where.
struct DescriptionError : std::runtime_error {
    size_t at;
    DescriptionError(size_t at, const std::string& what)
            : std::runtime_error(what),
              at(at) {}
};

/// What an exception says, without FAISS's "Error in ... failed: ".
std::string plain_message(const std::exception& error);

/** Parse the options of an IVF part, what is between the parentheses of
 * `IVF1024(gmm,tau=1/K)`; see index_factory.h for the grammar.
 *
 * @param text   the whole description
 * @param at     where the options begin in it; afterwards the place of the
 *               closing parenthesis
 * @param nlist  the K of "1/K"
 */
FlashOptions parse_options(const std::string& text, size_t& at, size_t nlist);

/// The inverse: trainer, policy and every parameter that is not the default.
std::string to_string(const FlashOptions& options);

} // namespace faiss_flash
