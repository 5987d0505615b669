#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <faiss_flash/AssignmentPolicy.h>
#include <faiss_flash/IndexIVFFlash.h>

namespace faiss_flash {

/// What is compared: stock FAISS, or one of our trainers with one of our
/// assignment rules.
struct Method {
    /// faiss::Clustering and the stock index class; the rest is not used
    bool stock = false;
    Trainer trainer = Trainer::kmeans;
    AssignmentRule rule = AssignmentRule::nearest;

    /// "faiss", "kmeans" or "gmm".
    std::string trainer_name() const;
    /// "nearest", "air", ...
    std::string policy_name() const;
    /// "faiss" or "TRAINER+POLICY".
    std::string name() const;
};

/// The name a row of these two columns belongs to; see Method::name().
std::string method_name(const std::string& trainer, const std::string& policy);

/// Methods by name, in the order given, each once; "all" stands for faiss and
/// every trainer with every rule. Throws std::invalid_argument.
std::vector<Method> parse_methods(const std::vector<std::string>& names);

/// How a posting list stores vectors.
struct Codec {
    enum class Kind { flat, pq, sq8 };
    Kind kind = Kind::flat;
    size_t pq_m = 0; ///< sub-quantizers of 8 bits each, Kind::pq only
    /// candidates per wanted result that are ranked again by their exact
    /// distance; 0: no re-ranking
    double rerank = 0;
    std::string name; ///< as it was asked for
    /// the same without re-ranking: codecs with one storage share an index
    std::string storage;
};

/// "flat", "sq8", "pqM", and each with "+rerank" (`default_rerank` candidates
/// per result) or "+rerankF" (F of them). Throws std::invalid_argument.
Codec parse_codec(const std::string& text, double default_rerank);

/// The assignment options of the command line, shared by all rules.
struct PolicyOptions {
    double tau = 0;
    double lambda = 1;
    double epsilon = 0.1;
    int max_lists = 0; ///< 0: the rule's own default
    int candidates = 16;
    bool strict = false;
};

AssignmentPolicy make_policy(AssignmentRule rule, const PolicyOptions& options);

/// The options that matter to a policy, as "lambda=1;strict=0".
std::string policy_params(const AssignmentPolicy& policy);

} // namespace faiss_flash
