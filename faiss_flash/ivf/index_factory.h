#pragma once

#include <string>

#include <faiss_flash/IndexIVFFlash.h>

namespace faiss_flash {

/** Build an index from a description: faiss::index_factory's, whose IVF part
 * may say how it is trained and which lists a vector goes to.
 *
 *   OPQ16,IVF4096(gmm,tau=1/K),PQ16      IVF1024(kmeans,nearest),Flat
 *   PCA64,IVF256(gmm,air),SQ8            IVF65536_HNSW32(soar=0.5),PQ32
 *   IDMap,IVF1024(top=2),Flat            IVF1024(air),PQ16,RFlat
 *
 * Between the parentheses, in any order:
 *
 *   trainer    kmeans | gmm
 *   policy     nearest | top_m | responsibility | closure | air | soar,
 *              also with its first parameter: top=3 (short for top_m),
 *              responsibility=1/K, closure=0.2, air=0.5, soar=1
 *   parameters tau=, max_lists=        of responsibility
 *              max_lists=              of top_m
 *              epsilon=, max_lists=, candidates=      of closure
 *              lambda=, candidates=    of air and soar
 *              strict                  of air
 *              warm_start_niter=, em_niter=, em_tolerance=, variance_floor=,
 *              min_weight=, covariance=               of gmm
 *              engine=                 as FlashOptions::engine
 *
 * Names, meanings and defaults are AssignmentPolicy's, GMMParameters'
 * (covariance=spherical, tied_spherical, diag or tied_diag) and
 * FlashOptions'; tau, epsilon or strict alone say which policy is meant. A
 * quantizer of FAISS's goes before them: IVF1024(IVF32,Flat)(gmm,air),Flat.
 *
 * What comes back, inside whatever wrappers the description asks for:
 * - IVF with Flat, PQ or SQ: IndexIVFFlatFlash, IndexIVFPQFlash or
 *   IndexIVFScalarQuantizerFlash, without options with the classes' defaults
 *   (Gaussian mixture, AIR);
 * - IVF with options and other codes (PQ16x4fs, RaBitQ, RQ8x8, ...):
 *   IndexUnique around FAISS's index;
 * - anything else: what faiss::index_factory makes of it.
 *
 * The caller owns the result. A description that cannot be understood gives
 * a FaissException that says what was expected and shows the place.
 *
 * @param d       dimensions, above 0
 * @param metric  METRIC_L2 or METRIC_INNER_PRODUCT for an IVF index
 */
faiss::Index* index_factory(
        int d,
        const char* description,
        faiss::MetricType metric = faiss::METRIC_L2);

/** A description from which index_factory makes an empty index like this
 * one: same classes, sizes, trainer and policy. Understands IndexIDMap(2), an
 * outermost IndexRefine with a flat index (not both), IndexPreTransform (PCA,
 * OPQ, ITQ, random rotation, normalisation, padding) and our three classes with
 * a flat or HNSW quantizer; throws for anything else, naming it.
 */
std::string index_description(const faiss::Index& index);

} // namespace faiss_flash
