#include <faiss_flash/ivf/factory_options.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <variant>
#include <vector>

#include <faiss_flash/engine/engine.h>

namespace faiss_flash {

namespace {

using Rule = AssignmentRule;
using Policy = AssignmentPolicy;
using GMM = GMMParameters;

Policy default_policy(Rule rule) {
    switch (rule) {
        case Rule::top_m:
            return Policy::top_m(2);
        case Rule::responsibility:
            return Policy::responsibility();
        case Rule::closure:
            return Policy::closure(0.1);
        case Rule::air:
            return Policy::air();
        case Rule::soar:
            return Policy::soar();
        case Rule::nearest:
            break;
    }
    return Policy::nearest();
}

/// A parameter: its name, where it is kept, and the rules it belongs to
/// (none: the trainer gmm). The first one that belongs to a rule is the one
/// meant by `rule=value`.
struct Parameter {
    const char* name;
    std::variant<
            int Policy::*,
            double Policy::*,
            bool Policy::*,
            int GMM::*,
            double GMM::*,
            Covariance GMM::*>
            field;
    std::vector<Rule> rules;

    bool belongs_to(Rule rule) const {
        return std::find(rules.begin(), rules.end(), rule) != rules.end();
    }
};

const std::vector<Parameter>& parameters() {
    static const std::vector<Parameter> table = {
            {"tau", &Policy::tau, {Rule::responsibility}},
            {"epsilon", &Policy::epsilon, {Rule::closure}},
            {"lambda", &Policy::lambda, {Rule::air, Rule::soar}},
            {"max_lists",
             &Policy::max_lists,
             {Rule::top_m, Rule::responsibility, Rule::closure}},
            {"candidates",
             &Policy::candidates,
             {Rule::closure, Rule::air, Rule::soar}},
            {"strict", &Policy::strict, {Rule::air}},
            {"warm_start_niter", &GMM::warm_start_niter, {}},
            {"em_niter", &GMM::em_niter, {}},
            {"em_tolerance", &GMM::em_tolerance, {}},
            {"covariance", &GMM::covariance, {}},
            {"variance_floor", &GMM::variance_floor, {}},
            {"min_weight", &GMM::min_weight, {}},
    };
    return table;
}

template <class T>
T& value_of(FlashOptions& options, T Policy::*field) {
    return options.policy.*field;
}
template <class T>
T& value_of(FlashOptions& options, T GMM::*field) {
    return options.gmm.*field;
}

/// "=value" as it is read again
template <class Number>
std::string written(Number value) {
    char buffer[32];
    const auto end =
            std::to_chars(buffer, buffer + sizeof(buffer), (double)value).ptr;
    return "=" + std::string(buffer, end);
}
std::string written(bool) {
    return "";
}
std::string written(Covariance value) {
    return std::string("=") + to_string(value);
}

/*************************************************************
 * Reading
 *************************************************************/

class OptionParser {
   public:
    OptionParser(const std::string& text, size_t at, size_t nlist)
            : text_(text),
              at_(at),
              nlist_(nlist) {}

    FlashOptions parse() {
        const size_t begin = at_;
        do {
            read_option();
        } while (take(','));
        skip_spaces();
        if (at_ == text_.size() || text_[at_] != ')') {
            throw DescriptionError(at_, "expected ',' or ')'");
        }
        imply_rule();
        for (const Given& given : given_) {
            set(given);
        }
        check(begin);
        return options_;
    }

    size_t at() const {
        return at_;
    }

   private:
    /// name=value, where they stand; without '=' value_at is 0
    struct Given {
        std::string name, value;
        size_t at, value_at;
    };

    void skip_spaces() {
        while (at_ < text_.size() && text_[at_] == ' ') {
            at_++;
        }
    }
    bool take(char c) {
        skip_spaces();
        const bool there = at_ < text_.size() && text_[at_] == c;
        at_ += there;
        return there;
    }
    std::string read_until(const char* stops) {
        skip_spaces();
        const size_t end =
                std::min(text_.find_first_of(stops, at_), text_.size());
        std::string word = text_.substr(at_, end - at_);
        at_ = end;
        while (!word.empty() && word.back() == ' ') {
            word.pop_back();
        }
        return word;
    }

    void read_option() {
        skip_spaces();
        Given given{"", "", at_, 0};
        given.name = read_until("=,()");
        if (take('=')) {
            skip_spaces();
            given.value_at = at_;
            given.value = read_until(",()");
        }
        if (is_trainer(given) || is_rule(given)) {
            return;
        }
        given_.push_back(given);
    }

    bool is_trainer(const Given& given) {
        for (Trainer trainer : {Trainer::kmeans, Trainer::gmm}) {
            if (given.name == to_string(trainer)) {
                if (has_trainer_) {
                    throw DescriptionError(given.at, "a second trainer");
                }
                no_value(given);
                has_trainer_ = true;
                options_.trainer = trainer;
                return true;
            }
        }
        return false;
    }

    bool is_rule(const Given& given) {
        Rule rule;
        if (given.name == "top") {
            rule = Rule::top_m;
        } else {
            try {
                rule = assignment_rule(given.name);
            } catch (const faiss::FaissException&) {
                return false;
            }
        }
        set_rule(rule, given.at);
        if (given.value_at == 0) {
            return true;
        }
        for (const Parameter& parameter : parameters()) {
            if (parameter.belongs_to(rule)) {
                given_.push_back(
                        {parameter.name,
                         given.value,
                         given.at,
                         given.value_at});
                return true;
            }
        }
        no_value(given);
        return true;
    }

    void set_rule(Rule rule, size_t at) {
        if (has_rule_) {
            throw DescriptionError(at, "a second policy");
        }
        has_rule_ = true;
        options_.policy = default_policy(rule);
    }

    /// A parameter of one rule says which one is meant.
    void imply_rule() {
        for (const Given& given : given_) {
            for (const Parameter& parameter : parameters()) {
                if (given.name == parameter.name && !has_rule_ &&
                    parameter.rules.size() == 1) {
                    set_rule(parameter.rules[0], given.at);
                }
            }
        }
    }

    static void no_value(const Given& given) {
        if (given.value_at != 0) {
            throw DescriptionError(
                    given.value_at, given.name + " takes no value");
        }
    }

    void set(const Given& given) {
        if (given.name == "engine") {
            set_engine(given);
            return;
        }
        for (const Parameter& parameter : parameters()) {
            if (given.name == parameter.name) {
                check_belongs(parameter, given);
                std::visit(
                        [&](auto field) {
                            read(given, value_of(options_, field));
                        },
                        parameter.field);
                return;
            }
        }
        throw DescriptionError(given.at, "expected " + known_names());
    }

    void check_belongs(const Parameter& parameter, const Given& given) {
        if (parameter.rules.empty()) {
            if (options_.trainer != Trainer::gmm) {
                throw DescriptionError(
                        given.at, given.name + " belongs to the trainer gmm");
            }
            return;
        }
        if (!parameter.belongs_to(options_.policy.rule)) {
            std::string rules;
            for (Rule rule : parameter.rules) {
                rules += (rules.empty() ? "" : ", ");
                rules += to_string(rule);
            }
            throw DescriptionError(
                    given.at,
                    given.name + " is no parameter of policy " +
                            to_string(options_.policy.rule) + ", but of " +
                            rules);
        }
    }

    void set_engine(const Given& given) {
        std::string known = "auto";
        bool there = given.value == known;
        for (const std::string& name : engine_names()) {
            there = there || given.value == name;
            known += ", " + name;
        }
        if (!there) {
            throw DescriptionError(
                    given.value_at ? given.value_at : given.at,
                    "engine expects one of " + known);
        }
        options_.engine = given.value;
    }

    void read(const Given& given, bool& flag) {
        no_value(given);
        flag = true;
    }

    void read(const Given& given, Covariance& covariance) {
        try {
            covariance = covariance_by_name(given.value);
        } catch (const faiss::FaissException& e) {
            throw DescriptionError(
                    given.value_at ? given.value_at : given.at,
                    plain_message(e));
        }
    }

    template <class T>
    void read(const Given& given, T& value) {
        std::string digits = given.value;
        const bool per_k = &value == (void*)&options_.policy.tau &&
                digits.size() > 2 &&
                digits.compare(digits.size() - 2, 2, "/K") == 0;
        if (per_k) {
            digits.resize(digits.size() - 2);
        }
        const char* end = digits.data() + digits.size();
        const auto result = std::from_chars(digits.data(), end, value);
        if (digits.empty() || result.ec != std::errc() || result.ptr != end) {
            throw DescriptionError(
                    given.value_at ? given.value_at : given.at,
                    given.name + " expects a " +
                            (std::is_same<T, int>::value ? "whole " : "") +
                            "number" +
                            (given.name == "tau" ? ", also as in 1/K" : "") +
                            ", as in " + given.name + "=" +
                            (given.name == "tau" ? "1/K" : "2"));
        }
        if (per_k) {
            value = value == 1 ? 0 : value / nlist_; // 0 stands for 1/nlist
        }
    }

    /// What the structures' own checks have to say.
    void check(size_t begin) const {
        try {
            options_.policy.check(nlist_);
            options_.gmm.check();
        } catch (const faiss::FaissException& e) {
            throw DescriptionError(begin, plain_message(e));
        }
    }

    static std::string known_names() {
        std::string names =
                "a trainer (kmeans, gmm), a policy (nearest, top_m, "
                "responsibility, closure, air, soar) or a parameter (engine";
        for (const Parameter& parameter : parameters()) {
            names += std::string(", ") + parameter.name;
        }
        return names + ")";
    }

    const std::string& text_;
    size_t at_;
    const size_t nlist_;
    bool has_trainer_ = false, has_rule_ = false;
    std::vector<Given> given_;
    FlashOptions options_;
};

} // namespace

std::string plain_message(const std::exception& error) {
    const std::string message = error.what();
    for (const char* before : {" failed: ", ".cpp:"}) {
        const size_t at = message.find(before);
        if (at != std::string::npos) {
            const size_t begin = at + strlen(before);
            return message.substr(
                    *before == '.' ? message.find(' ', begin) + 1 : begin);
        }
    }
    return message;
}

FlashOptions parse_options(const std::string& text, size_t& at, size_t nlist) {
    OptionParser parser(text, at, nlist);
    FlashOptions options = parser.parse();
    at = parser.at();
    return options;
}

/*************************************************************
 * Writing
 *************************************************************/

std::string to_string(const FlashOptions& options) {
    std::string text = std::string(to_string(options.trainer)) + "," +
            to_string(options.policy.rule);
    FlashOptions is = options, was;
    was.policy = default_policy(options.policy.rule);
    for (const Parameter& parameter : parameters()) {
        const bool used = parameter.rules.empty()
                ? options.trainer == Trainer::gmm
                : parameter.belongs_to(options.policy.rule);
        if (!used) {
            continue;
        }
        std::visit(
                [&](auto field) {
                    const auto value = value_of(is, field);
                    if (value == value_of(was, field)) {
                        return;
                    }
                    text += std::string(",") + parameter.name + written(value);
                },
                parameter.field);
    }
    if (options.engine != was.engine) {
        text += ",engine=" + options.engine;
    }
    return text;
}

} // namespace faiss_flash
