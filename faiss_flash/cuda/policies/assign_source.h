#pragma once

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/trainer/source.h>

namespace faiss_flash {

/** Posting lists of vectors that may be larger than the device: chunks of
 * them are copied while others are worked on.
 *
 * @param policy  ListAssigner::can()
 * @param model   under L2
 * @param source  on the host; or, where nullptr:
 * @param x       (n, d) on the device
 * @param lists   (n, policy.list_limit()), on the host with `source`, else on
 *                the device
 * @param stream  nullptr: one of our own
 */
void assign_source(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const VectorSource* source,
        const DeviceVectors& x,
        idx_t* lists,
        void* stream);

/// The same for any policy, all on the device; see assign_lists_device().
void assign_on_device(
        const AssignmentPolicy& policy,
        const Model& model,
        size_t n,
        const DeviceVectors& x,
        idx_t* lists,
        void* stream);

} // namespace faiss_flash
