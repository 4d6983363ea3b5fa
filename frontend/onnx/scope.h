// What names stand for while a model is read: in its graph, in a graph of a node (which sees the
// names around it), or in a function (which does not). Private to frontend/onnx.
#pragma once

#include "frontend/onnx/proto.h"
#include "ir/graph.h"

#include <string>
#include <unordered_map>
#include <unordered_set>

namespace lathe::core::onnx {

using Values = std::vector<ValueId>;

// A value of the graph, or a sequence of them: its length is known while reading, so no sequence is
// left at run time. Neither: an input that is left out, or an optional without a value.
struct Item {
  ValueId id = no_value;
  std::shared_ptr<const Values> sequence = {};

  bool present() const { return id != no_value || sequence; }
};
using Items = std::vector<Item>;

struct Scope {
  const Scope *outer = nullptr;   // whose names are seen too
  const Opsets *opsets = nullptr; // of the model, or of the function
  // Of the call, in a function: what its nodes' attributes may refer to.
  const std::vector<AttributeProto> *attributes = nullptr;
  std::string prefix = {}; // of the names of values and layers
  int depth = 0;           // in calls and graphs of nodes
  std::unordered_map<Bytes, Item> items = {};
  std::unordered_set<Bytes> broken = {}; // values that a problem stands before

  // Null for a name that nothing has defined so far.
  const Item *find(Bytes name) const {
    for (const Scope *scope = this; scope; scope = scope->outer)
      if (auto found = scope->items.find(name); found != scope->items.end()) return &found->second;
    return nullptr;
  }
  bool is_broken(Bytes name) const {
    for (const Scope *scope = this; scope; scope = scope->outer)
      if (scope->broken.contains(name)) return true;
    return false;
  }
};

// The names that a graph takes from the scope around it.
std::unordered_set<Bytes> captured_names(const GraphProto &graph);

// The nodes that `outputs` need, in an order that defines every value before its use, otherwise as
// in the file. `defined`: what the scope knows before the first node. Errors: invalid, for values
// that are made twice or by nothing, and cycles, wherever in `nodes`.
Result<std::vector<size_t>> execution_order(const std::vector<NodeProto> &nodes,
                                            const std::vector<Bytes> &outputs, const Scope &scope);

// How errors call a node: by its name, or by its first output.
Bytes shown(const NodeProto &node);

} // namespace lathe::core::onnx
