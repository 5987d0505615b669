#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace faiss_flash {

/** Walk over FAISS's part of a file as FAISS's reader would, without
 * allocating for what it finds: every size is compared with the bytes that
 * are left and with the other sizes it has to agree with. What passes,
 * faiss::read_index parses without touching memory it has not, and without
 * allocating more than a small multiple of the file (the constant: FAISS's
 * empty lists, 48 bytes each, of which 2²⁰ are let through).
 *
 * Known are the kinds our files are made of: IVF with Flat, PQ or SQ codes;
 * flat, HNSW, scalar-quantizer and IVF indexes as quantizers or for
 * refinement; IndexPreTransform, IndexIDMap(2), IndexRefine; array and
 * on-disk lists. Any other kind is an error, as is metric other than L2 and
 * inner product.
 *
 * What the numbers in a vector mean (graphs, ids, direct maps) is
 * check_contents()'s to judge.
 *
 * @param file   open for reading; its position is moved
 * @param bytes  of FAISS's part, from the file's beginning
 * Throws a FaissException without the file's name.
 */
void check_layout(std::FILE* file, uint64_t bytes);

} // namespace faiss_flash
