// The layers of the language: what each may say, and the op and weights that it means.
#pragma once

#include "frontend/net/scope.h"
#include "ir/graph.h"

namespace lathe::core::net {

// One layer statement where it stands, its arguments read in a scope.
struct LayerCall {
  const Statement &statement;
  const Scope &scope;
  std::string name; // in full
  Shape x;          // of what the layer reads
  bool normalised;  // a batch norm follows, whose shift makes a bias superfluous

  const Argument *option(std::string_view name) const;
  const Argument *positional(size_t index) const;
  bool flag(const Argument *a, bool standard = false) const;
  double number(const Argument *a, double standard) const;
  int64_t integer(const Argument *a, int64_t standard) const;
  int64_t count(const Argument *a) const;           // at least 1
  ConstantRef per_channel(const Argument *a) const; // one number for all, or one for each
  std::vector<int64_t> integers(const Argument *a, std::vector<int64_t> standard) const;
  Size2 size(const Argument *a, Size2 standard) const;
  int64_t channels() const { return x.size() > 1 ? x[1] : 1; }
};

// The operands besides the layer's input, named in the graph after the layer: "conv1" + ".weight".
struct Operand {
  std::string suffix;
  ConstantRef constant;
};
struct Layer {
  Op op;
  std::vector<Operand> operands = {};
};

struct OptionRule {
  std::string_view name;
  bool flag = false; // may stand alone, or before a truth value
};
struct LayerRule {
  std::string_view name;
  size_t least, most;          // positional arguments, which stand in front
  std::string_view positional; // what they are, for messages
  std::vector<OptionRule> options;
  Layer (*make)(const LayerCall &call);
};
const LayerRule *find_layer(std::string_view name);
std::vector<std::string> layer_names();

// "concat", "add" and the like, which join branches in braces.
bool is_join(std::string_view word);

} // namespace lathe::core::net
