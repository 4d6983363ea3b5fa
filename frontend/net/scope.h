// Names, and the values of expressions in their sight.
#pragma once

#include "frontend/net/syntax.h"

#include <map>

namespace lathe::core::net {

using Value = std::vector<double>; // a number, or a tuple of several; truth is 0 or 1

// What one description may cost. Every statement and every part of an expression takes a step.
struct Steps {
  int64_t left = 10'000'000;
  void take(const Place &place); // Failure with code `limit` when nothing is left
};

// The names of one pair of braces; those around it are visible unless they are hidden.
class Scope {
public:
  explicit Scope(Steps &steps) : steps_(&steps) {}
  explicit Scope(const Scope *outer) : outer_(outer), steps_(outer->steps_) {}

  void set(std::string_view name, Value value) { values_[std::string(name)] = std::move(value); }
  const Value *find(std::string_view name) const;
  std::vector<std::string> names() const; // all in sight

  // Failures: unknown names, division by zero, results beyond 1e15 or of the wrong kind.
  Value evaluate(const Expression &e) const;
  double number(const Expression &e) const;
  int64_t integer(const Expression &e) const; // whole, at most 1e9 either side of zero
  std::vector<int64_t> integers(const Expression &e) const;

private:
  double arithmetic(const Expression &e) const;
  double function(const Expression &e) const;

  const Scope *outer_ = nullptr;
  Steps *steps_;
  std::map<std::string, Value, std::less<>> values_;
};

// "perhaps 'x'" for the candidate nearest to a misspelt name, else `otherwise`.
std::string perhaps(std::string_view name, const std::vector<std::string> &candidates,
                    std::string otherwise = {});

} // namespace lathe::core::net
