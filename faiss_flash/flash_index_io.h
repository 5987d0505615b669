#pragma once

#include <faiss/Index.h>

namespace faiss_flash {

/** Save an index of ours to a file, whole or not at all.
 *
 * The file is the stock FAISS file of the base class followed by a trailer
 * with the policy, the mixture and a checksum. faiss::read_index opens it as
 * the stock class (which then returns copies as duplicates);
 * faiss_flash::read_index opens it complete.
 *
 * Written to a temporary file in the same folder, checked as read_index
 * checks it, flushed to disk, then renamed: a crash leaves the old file or
 * the new one. What could not be read back throws and leaves the old file.
 *
 * @param index  IndexIVFFlatFlash, IndexIVFPQFlash or
 *               IndexIVFScalarQuantizerFlash, also inside IndexPreTransform,
 *               IndexIDMap, IndexIDMap2 and IndexRefine (there as
 *               base_index). Its quantizer, and a refine_index: flat,
 *               MixtureQuantizer, HNSW, IndexScalarQuantizer or one of
 *               FAISS's three IVF classes. Lists: in memory or on disk.
 */
void write_index(const faiss::Index* index, const char* path);

/** Open a file written by faiss_flash::write_index. The caller owns the
 * result.
 *
 * Any bytes give an index that can be searched or a FaissException: nothing
 * is parsed before magic, lengths and checksum are right and every size in
 * FAISS's part has been compared with the file's (io/check_layout.h), nothing
 * is returned before ids, graphs and direct maps are seen to lead nowhere
 * outside (io/check_contents.h). Memory is at most a small multiple of the
 * file's size; FAISS's precomputed table of an IVF-PQ index, whose size is a
 * product, is left out where it would exceed 64 times the file (call
 * precompute_table()).
 */
faiss::Index* read_index(const char* path);

/** A deep copy, of the same classes: what faiss::clone_index makes of FAISS's
 * indexes, and everything our classes add, inside wrappers as well. Where
 * FAISS cannot clone a part (in 1.7.3 on-disk lists, FastScan) it throws.
 * Search counters of the copy start from zero. The caller owns the result.
 */
faiss::Index* clone_index(const faiss::Index* index);

} // namespace faiss_flash
