#pragma once

#include <faiss/Index.h>

namespace faiss_flash {

/** What check_layout() cannot see from the sizes, of an index that FAISS has
 * read or is going to write: centroids are finite, the graph of an HNSW
 * quantizer stays inside itself, direct maps lead to entries of their ids,
 * and ids are places in what a wrapper (IndexIDMap, IndexRefine) or an index
 * used as a quantizer keeps beside them. Using an index that passes touches
 * no memory that it has not.
 *
 * O(nlist·d), with a direct map or a wrapper O(entries).
 * Throws a FaissException without the file's name.
 */
void check_contents(const faiss::Index& index);

} // namespace faiss_flash
