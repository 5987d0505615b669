#include <faiss_flash/AssignmentPolicy.h>

#include <cmath>

namespace faiss_flash {

namespace {

struct RuleName {
    AssignmentRule rule;
    const char* name;
};

constexpr RuleName rule_names[] = {
        {AssignmentRule::nearest, "nearest"},
        {AssignmentRule::top_m, "top_m"},
        {AssignmentRule::responsibility, "responsibility"},
        {AssignmentRule::closure, "closure"},
        {AssignmentRule::air, "air"},
        {AssignmentRule::soar, "soar"},
};

bool uses_max_lists(AssignmentRule rule) {
    return rule == AssignmentRule::top_m ||
            rule == AssignmentRule::responsibility ||
            rule == AssignmentRule::closure;
}

} // namespace

const char* to_string(AssignmentRule rule) {
    for (const RuleName& entry : rule_names) {
        if (entry.rule == rule) {
            return entry.name;
        }
    }
    FAISS_THROW_FMT("AssignmentRule %d is none of the enumerators", (int)rule);
}

AssignmentRule assignment_rule(const std::string& name) {
    std::string known;
    for (const RuleName& entry : rule_names) {
        if (name == entry.name) {
            return entry.rule;
        }
        known += known.empty() ? "" : ", ";
        known += entry.name;
    }
    FAISS_THROW_FMT(
            "assignment rule '%s' is not one of: %s",
            name.c_str(),
            known.c_str());
}

AssignmentPolicy AssignmentPolicy::nearest() {
    AssignmentPolicy policy;
    policy.rule = AssignmentRule::nearest;
    return policy;
}

AssignmentPolicy AssignmentPolicy::top_m(int m) {
    AssignmentPolicy policy;
    policy.rule = AssignmentRule::top_m;
    policy.max_lists = m;
    return policy;
}

AssignmentPolicy AssignmentPolicy::responsibility(double tau, int max_lists) {
    AssignmentPolicy policy;
    policy.rule = AssignmentRule::responsibility;
    policy.tau = tau;
    policy.max_lists = max_lists;
    return policy;
}

AssignmentPolicy AssignmentPolicy::closure(double epsilon, int max_lists) {
    AssignmentPolicy policy;
    policy.rule = AssignmentRule::closure;
    policy.epsilon = epsilon;
    policy.max_lists = max_lists;
    return policy;
}

AssignmentPolicy AssignmentPolicy::air(double lambda, bool strict) {
    AssignmentPolicy policy;
    policy.rule = AssignmentRule::air;
    policy.lambda = lambda;
    policy.strict = strict;
    return policy;
}

AssignmentPolicy AssignmentPolicy::soar(double lambda) {
    AssignmentPolicy policy;
    policy.rule = AssignmentRule::soar;
    policy.lambda = lambda;
    return policy;
}

void AssignmentPolicy::check(size_t nlist) const {
    to_string(rule);
    FAISS_THROW_IF_NOT_FMT(
            max_lists >= 1,
            "AssignmentPolicy: max_lists = %d should be at least 1",
            max_lists);
    FAISS_THROW_IF_NOT_FMT(
            !uses_max_lists(rule) || (size_t)max_lists <= nlist,
            "AssignmentPolicy: max_lists = %d should be at most nlist = %zd",
            max_lists,
            nlist);
    FAISS_THROW_IF_NOT_FMT(
            tau >= 0 && tau < 1,
            "AssignmentPolicy: tau = %g should be in (0, 1), or 0 for 1/nlist",
            tau);
    FAISS_THROW_IF_NOT_FMT(
            epsilon >= 0 && std::isfinite(epsilon),
            "AssignmentPolicy: epsilon = %g should be finite and at least 0",
            epsilon);
    FAISS_THROW_IF_NOT_FMT(
            lambda >= 0 && std::isfinite(lambda),
            "AssignmentPolicy: lambda = %g should be finite and at least 0",
            lambda);
    FAISS_THROW_IF_NOT_FMT(
            candidates >= 2,
            "AssignmentPolicy: candidates = %d should be at least 2",
            candidates);
}

int AssignmentPolicy::list_limit() const {
    switch (rule) {
        case AssignmentRule::nearest:
            return 1;
        case AssignmentRule::air:
        case AssignmentRule::soar:
            return 2;
        default:
            return max_lists;
    }
}

double AssignmentPolicy::share_limit(size_t k) const {
    return tau > 0 ? tau : 1.0 / k;
}

bool AssignmentPolicy::compares_residuals() const {
    return rule == AssignmentRule::closure || rule == AssignmentRule::air ||
            rule == AssignmentRule::soar;
}

} // namespace faiss_flash
