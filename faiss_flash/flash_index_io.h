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
 * Written to a temporary file in the same folder, flushed to disk, then
 * renamed: a crash leaves the old file or the new one.
 *
 * @param index  IndexIVFFlatFlash, IndexIVFPQFlash or
 *               IndexIVFScalarQuantizerFlash
 */
void write_index(const faiss::Index* index, const char* path);

/** Open a file written by faiss_flash::write_index. The caller owns the
 * result. Throws if the file is not ours, damaged or truncated (the checksum
 * is verified before anything is parsed), or of a newer format.
 */
faiss::Index* read_index(const char* path);

} // namespace faiss_flash
