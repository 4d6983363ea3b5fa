#include "frontend/net/scope.h"

#include "frontend/suggest.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace lathe::core::net {

void Steps::take(const Place &place) {
  if (--left >= 0) return;
  Error error = error_at(place, "the description takes too long to work out");
  error.code = ErrorCode::limit;
  throw Failure{std::move(error)};
}

const Value *Scope::find(std::string_view name) const {
  for (const Scope *scope = this; scope; scope = scope->outer_)
    if (auto found = scope->values_.find(name); found != scope->values_.end())
      return &found->second;
  return nullptr;
}

std::vector<std::string> Scope::names() const {
  std::vector<std::string> names;
  for (const Scope *scope = this; scope; scope = scope->outer_)
    for (const auto &[name, value] : scope->values_)
      if (names.size() < 1000) names.push_back(name);
  return names;
}

Value Scope::evaluate(const Expression &e) const {
  using Kind = Expression::Kind;
  steps_->take(e.place);
  switch (e.kind) {
  case Kind::literal:
    return e.literal;
  case Kind::name:
    if (const Value *value = find(e.text)) return *value;
    reject(e.place, fmt::format("unknown name '{}'", e.text), perhaps(e.text, names()));
  case Kind::tuple: {
    Value values;
    for (const ExpressionRef &part : e.parts) values.push_back(number(*part));
    return values;
  }
  case Kind::conditional:
    return evaluate(number(*e.parts[0]) != 0 ? *e.parts[1] : *e.parts[2]);
  case Kind::unary: {
    double value = number(*e.parts[0]);
    return {e.text == "-" ? -value : value == 0};
  }
  case Kind::binary:
    return {arithmetic(e)};
  case Kind::call:
    return {function(e)};
  }
  return {};
}

double Scope::arithmetic(const Expression &e) const {
  std::string_view op = e.text;
  double a = number(*e.parts[0]);
  if (op == "and") return a != 0 && number(*e.parts[1]) != 0;
  if (op == "or") return a != 0 || number(*e.parts[1]) != 0;
  double b = number(*e.parts[1]);
  if ((op == "/" || op == "%") && b == 0) reject(e.place, "division by zero");
  double result = op == "+"    ? a + b
                  : op == "-"  ? a - b
                  : op == "*"  ? a * b
                  : op == "/"  ? a / b
                  : op == "%"  ? a - b * std::floor(a / b)
                  : op == "==" ? a == b
                  : op == "!=" ? a != b
                  : op == "<"  ? a < b
                  : op == "<=" ? a <= b
                  : op == ">"  ? a > b
                               : a >= b;
  if (!(std::abs(result) <= 1e15)) reject(e.place, "a result is out of range", "at most 1e15");
  return result;
}

double Scope::function(const Expression &e) const {
  struct Function {
    std::string_view name;
    size_t arguments;
    double (*apply)(const double *);
  };
  static constexpr Function functions[] = {
      {"floor", 1, [](const double *a) { return std::floor(a[0]); }},
      {"ceil", 1, [](const double *a) { return std::ceil(a[0]); }},
      {"round", 1, [](const double *a) { return std::round(a[0]); }},
      {"min", 2, [](const double *a) { return std::min(a[0], a[1]); }},
      {"max", 2, [](const double *a) { return std::max(a[0], a[1]); }},
  };
  auto found = std::ranges::find(functions, e.text, &Function::name);
  if (found == std::end(functions))
    reject(e.place, fmt::format("unknown function '{}'", e.text), "floor, ceil, round, min or max");
  if (e.parts.size() != found->arguments)
    reject(e.place, fmt::format("wrong number of arguments of '{}'", e.text),
           fmt::format("{}", found->arguments), fmt::format("{}", e.parts.size()));
  double arguments[2] = {};
  for (size_t i = 0; i < e.parts.size(); ++i) arguments[i] = number(*e.parts[i]);
  return found->apply(arguments);
}

double Scope::number(const Expression &e) const {
  Value value = evaluate(e);
  if (value.size() != 1)
    reject(e.place, "wrong kind of value", "one number",
           fmt::format("({})", fmt::join(value, ", ")));
  return value[0];
}

static int64_t whole(const Expression &e, double value) {
  if (value != std::floor(value))
    reject(e.place, "not a whole number", "a whole number", fmt::format("{}", value));
  if (std::abs(value) > 1e9)
    reject(e.place, "a number is out of range", "at most 1000000000", fmt::format("{}", value));
  return static_cast<int64_t>(value);
}
int64_t Scope::integer(const Expression &e) const { return whole(e, number(e)); }
std::vector<int64_t> Scope::integers(const Expression &e) const {
  std::vector<int64_t> result;
  for (double value : evaluate(e)) result.push_back(whole(e, value));
  return result;
}

std::string perhaps(std::string_view name, const std::vector<std::string> &candidates,
                    std::string otherwise) {
  std::string near = nearest(name, candidates);
  return near.empty() ? otherwise : fmt::format("perhaps '{}'", near);
}

} // namespace lathe::core::net
