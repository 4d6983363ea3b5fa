// Does a graph treat dimension 0 as a batch of independent images throughout?
#include "passes/plan/planner.h"

#include <algorithm>

namespace lathe::core {
namespace {

// Whether a node keeps images apart, given which operands carry images in dimension 0. An op that
// is not listed does not compile.
struct KeepsImages {
  const Graph &graph;
  const Node &node;
  const std::vector<bool> &carries;

  bool in(size_t i) const { return carries[node.inputs[i]]; }
  size_t rank(size_t i) const { return graph.shape(node.inputs[i]).size(); }
  bool only_first() const { // weights and parameters are the same for every image
    return in(0) && std::none_of(node.inputs.begin() + 1, node.inputs.end(),
                                 [&](ValueId id) { return carries[id]; });
  }
  bool is_first(int64_t axis) const { return axis_index(axis, rank(0)) == 0; }

  template <LayerOp L> bool operator()(const L &op) const { // weights are the same for every image
    for (size_t i = 0; i < node.inputs.size(); ++i)
      if (in(i) != (i == 0 || i >= post_input(op))) return false;
    return true;
  }
  bool operator()(const GlobalPool &) const { return in(0); }
  bool operator()(const Lrn &) const { return in(0); }
  bool operator()(const BatchNorm &) const { return only_first(); }
  bool operator()(const Unary &) const { return in(0); }
  bool operator()(const Cast &) const { return in(0); }
  bool operator()(const Dropout &) const { return in(0); }
  bool operator()(const Binary &) const {
    // An operand without images broadcasts over them if it has no dimension 0 or a single entry.
    size_t result_rank = graph.shape(node.outputs[0]).size();
    for (size_t i = 0; i < 2; ++i) {
      if (in(i) && rank(i) != result_rank) return false;
      if (!in(i) && rank(i) == result_rank && graph.shape(node.inputs[i])[0] != 1) return false;
    }
    return in(0) || in(1);
  }
  bool operator()(const Softmax &op) const { return in(0) && !is_first(op.axis); }
  bool operator()(const Concat &op) const {
    return !is_first(op.axis) &&
           std::ranges::all_of(node.inputs, [&](ValueId id) { return carries[id]; });
  }
  bool operator()(const Slice &op) const {
    return in(0) && std::ranges::none_of(op.axes, [&](int64_t a) { return is_first(a); });
  }
  bool operator()(const Split &op) const { return in(0) && !is_first(op.axis); }
  bool operator()(const Pad &op) const { return in(0) && op.before[0] == 0 && op.after[0] == 0; }
  bool operator()(const Reshape &) const { return in(0) && keeps_leading_one(); }
  bool operator()(const Flatten &op) const {
    return in(0) && !is_first(op.axis) && keeps_leading_one();
  }
  bool operator()(const Transpose &op) const { return in(0) && op.perm[0] == 0; }
  bool operator()(const Expand &op) const { return in(0) && rank(0) == op.shape.size(); }
  bool operator()(const Gather &op) const { return only_first() && !is_first(op.axis); }
  bool operator()(const Reduce &op) const {
    return in(0) && std::ranges::none_of(op.axes, [&](int64_t a) { return is_first(a); });
  }
  bool operator()(const ArgReduce &op) const { return in(0) && !is_first(op.axis); }
  bool operator()(const Hardmax &op) const { return in(0) && !is_first(op.axis); }

  bool keeps_leading_one() const {
    const Shape &y = graph.shape(node.outputs[0]);
    return !y.empty() && y[0] == 1;
  }
};

} // namespace

bool images_are_independent(const Graph &graph) {
  std::vector<bool> carries(graph.values.size());
  for (ValueId id : graph.inputs) {
    if (graph.shape(id).empty() || graph.shape(id)[0] != 1) return false;
    carries[id] = true;
  }
  for (const Node &node : graph.nodes) {
    if (!std::visit(KeepsImages{graph, node, carries}, node.op)) return false;
    for (ValueId id : node.outputs) {
      if (graph.shape(id).empty() || graph.shape(id)[0] != 1) return false;
      carries[id] = true;
    }
  }
  return std::ranges::all_of(graph.outputs, [&](ValueId id) { return carries[id]; });
}

} // namespace lathe::core
