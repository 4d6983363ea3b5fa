// identity(x) -> x, for every op that changes nothing at inference: dropout, identity, a slice or
// reshape to the same shape, a concat of one, padding by zero, a 1x1 pool.
#include "passes/pipeline.h"

#include <algorithm>
#include <numeric>

namespace lathe::core {
namespace {

struct ChangesNothing {
  bool same_shape;
  DType dtype; // of the operand
  bool operator()(const Dropout &) const { return true; }
  bool operator()(const Unary &op) const { return op.kind == UnaryKind::identity; }
  bool operator()(const Slice &op) const {
    return same_shape && std::ranges::all_of(op.step, [](int64_t step) { return step > 0; });
  }
  bool operator()(const Reshape &) const { return same_shape; }
  bool operator()(const Flatten &) const { return same_shape; }
  bool operator()(const Pad &) const { return same_shape; }
  bool operator()(const Expand &) const { return same_shape; }
  bool operator()(const Cast &op) const { return op.to == dtype; }
  bool operator()(const Split &op) const { return op.sizes.size() == 1; }
  bool operator()(const Transpose &op) const { return std::ranges::is_sorted(op.perm); }
  bool operator()(const Pool &op) const {
    return same_shape && op.kernel == Size2{} && op.stride == Size2{} && op.pad == Pads{} &&
           inputs_of(op) == 1 && op.pre.empty() && op.post.empty();
  }
  template <typename T> bool operator()(const T &) const { return false; }
};

} // namespace

int64_t drop_identities(Graph &graph) {
  std::vector<ValueId> forward(graph.values.size());
  std::iota(forward.begin(), forward.end(), ValueId{0});
  auto redirect = [&](std::vector<ValueId> &ids) {
    for (ValueId &id : ids) id = forward[id];
  };
  // Results keep their names: a value may stand for a graph output only if it can take its name.
  const Uses uses(graph);
  std::vector<bool> is_output = uses.is_output;
  auto takes_name = [&](ValueId from, ValueId to) {
    if (!is_output[from]) return true;
    if (is_output[to] || uses.producer[to] < 0) return false;
    std::swap(graph.values[from].name, graph.values[to].name);
    return bool(is_output[to] = true);
  };
  int64_t changed = 0;
  std::vector<Node> kept;
  for (Node &node : graph.nodes) {
    redirect(node.inputs);
    bool same_shape = graph.shape(node.inputs[0]) == graph.shape(node.outputs[0]);
    DType dtype = graph.type(node.inputs[0]).dtype;
    bool nothing = std::visit(ChangesNothing{same_shape, dtype}, node.op) ||
                   (std::holds_alternative<Concat>(node.op) && node.inputs.size() == 1);
    if (nothing && takes_name(node.outputs[0], node.inputs[0])) {
      forward[node.outputs[0]] = node.inputs[0];
      ++changed;
    } else {
      kept.push_back(std::move(node));
    }
  }
  graph.nodes = std::move(kept);
  redirect(graph.outputs);
  return changed;
}

} // namespace lathe::core
