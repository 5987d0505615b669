#include <eval/methods.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace faiss_flash {

namespace {

const Trainer all_trainers[] = {Trainer::kmeans, Trainer::gmm};

const AssignmentRule all_rules[] = {
        AssignmentRule::nearest,
        AssignmentRule::top_m,
        AssignmentRule::responsibility,
        AssignmentRule::closure,
        AssignmentRule::air,
        AssignmentRule::soar};

std::vector<Method> all_methods() {
    std::vector<Method> methods(1);
    methods[0].stock = true;
    for (Trainer trainer : all_trainers) {
        for (AssignmentRule rule : all_rules) {
            Method method;
            method.trainer = trainer;
            method.rule = rule;
            methods.push_back(method);
        }
    }
    return methods;
}

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%g", value);
    return text;
}

/// The whole of `text` as a number, or NaN.
double whole_number(const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    return text.empty() || *end ? std::nan("") : value;
}

} // namespace

std::string Method::trainer_name() const {
    return stock ? "faiss" : to_string(trainer);
}

std::string Method::policy_name() const {
    return to_string(stock ? AssignmentRule::nearest : rule);
}

std::string Method::name() const {
    return method_name(trainer_name(), policy_name());
}

std::string method_name(const std::string& trainer, const std::string& policy) {
    return trainer == "faiss" ? trainer : trainer + "+" + policy;
}

std::vector<Method> parse_methods(const std::vector<std::string>& names) {
    const std::vector<Method> known = all_methods();
    std::vector<Method> methods;
    const auto add = [&](const Method& method) {
        const bool there = std::any_of(
                methods.begin(), methods.end(), [&](const Method& m) {
                    return m.name() == method.name();
                });
        if (!there) {
            methods.push_back(method);
        }
    };
    for (const std::string& name : names) {
        if (name == "all") {
            std::for_each(known.begin(), known.end(), add);
            continue;
        }
        const auto found =
                std::find_if(known.begin(), known.end(), [&](const Method& m) {
                    return m.name() == name;
                });
        if (found == known.end()) {
            std::string text = "method '" + name + "' is not one of: all";
            for (const Method& m : known) {
                text += ", " + m.name();
            }
            throw std::invalid_argument(text);
        }
        add(*found);
    }
    if (methods.empty()) {
        throw std::invalid_argument("no method given");
    }
    return methods;
}

Codec parse_codec(const std::string& text, double default_rerank) {
    const auto refuse = [&]() -> std::invalid_argument {
        return std::invalid_argument(
                "codec '" + text +
                "' is not one of: flat, sq8, pqM (M from 1 to 1024), each "
                "with or without +rerank or +rerankF (F from 1 to 10000)");
    };
    Codec codec;
    codec.name = text;
    std::string base = text;
    const std::string suffix = "+rerank";
    const size_t at = text.find(suffix);
    if (at != std::string::npos) {
        base = text.substr(0, at);
        const std::string factor = text.substr(at + suffix.size());
        codec.rerank = factor.empty() ? default_rerank : whole_number(factor);
        if (!(codec.rerank >= 1 && codec.rerank <= 10000)) {
            throw refuse();
        }
    }
    codec.storage = base;
    if (base == "flat") {
        codec.kind = Codec::Kind::flat;
    } else if (base == "sq8") {
        codec.kind = Codec::Kind::sq8;
    } else if (base.compare(0, 2, "pq") == 0) {
        codec.kind = Codec::Kind::pq;
        const double m = whole_number(base.substr(2));
        if (!(m >= 1 && m <= 1024 && m == std::floor(m))) {
            throw refuse();
        }
        codec.pq_m = static_cast<size_t>(m);
    } else {
        throw refuse();
    }
    return codec;
}

AssignmentPolicy make_policy(
        AssignmentRule rule,
        const PolicyOptions& options) {
    AssignmentPolicy policy;
    policy.rule = rule;
    policy.tau = options.tau;
    policy.lambda = options.lambda;
    policy.epsilon = options.epsilon;
    policy.strict = options.strict;
    policy.candidates = options.candidates;
    if (options.max_lists != 0) {
        policy.max_lists = options.max_lists;
    } else {
        // SPANN's own bound is 8 lists; everything else is about pairs.
        policy.max_lists = rule == AssignmentRule::closure ? 8 : 2;
    }
    return policy;
}

std::string policy_params(const AssignmentPolicy& policy) {
    const std::string lists = "max_lists=" + std::to_string(policy.max_lists);
    const std::string candidates =
            "candidates=" + std::to_string(policy.candidates);
    const std::string lambda = "lambda=" + number(policy.lambda);
    switch (policy.rule) {
        case AssignmentRule::nearest:
            return "";
        case AssignmentRule::top_m:
            return lists;
        case AssignmentRule::responsibility:
            return "tau=" + (policy.tau > 0 ? number(policy.tau) : "1/K") +
                    ";" + lists;
        case AssignmentRule::closure:
            return "epsilon=" + number(policy.epsilon) + ";" + lists + ";" +
                    candidates;
        case AssignmentRule::air:
            return lambda + (policy.strict ? ";strict=1;" : ";strict=0;") +
                    candidates;
        case AssignmentRule::soar:
            return lambda + ";" + candidates;
    }
    return "";
}

} // namespace faiss_flash
