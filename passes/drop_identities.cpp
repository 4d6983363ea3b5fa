// identity(x) -> x, for every op that changes nothing at inference: dropout, identity, a slice or
// reshape to the same shape, a concat of one, padding by zero, a 1x1 pool.
#include "passes/pipeline.h"

#include <algorithm>
#include <numeric>

namespace lathe {
namespace {

struct ChangesNothing {
  bool same_shape;
  bool operator()(const Dropout &) const { return true; }
  bool operator()(const Unary &op) const { return op.kind == UnaryKind::identity; }
  bool operator()(const Slice &) const { return same_shape; }
  bool operator()(const Reshape &) const { return same_shape; }
  bool operator()(const Flatten &) const { return same_shape; }
  bool operator()(const Pad &) const { return same_shape; }
  bool operator()(const Split &op) const { return op.sizes.size() == 1; }
  bool operator()(const Transpose &op) const { return std::ranges::is_sorted(op.perm); }
  bool operator()(const Pool &op) const {
    return same_shape && op.kernel == Size2{} && op.stride == Size2{} && op.pad == Pads{};
  }
  template <typename T> bool operator()(const T &) const { return false; }
};

} // namespace

bool drop_identities(Graph &graph) {
  std::vector<ValueId> forward(graph.values.size());
  std::iota(forward.begin(), forward.end(), ValueId{0});
  auto redirect = [&](std::vector<ValueId> &ids) {
    for (ValueId &id : ids) id = forward[id];
  };
  bool changed = false;
  std::vector<Node> kept;
  for (Node &node : graph.nodes) {
    redirect(node.inputs);
    bool same_shape = graph.shape(node.inputs[0]) == graph.shape(node.outputs[0]);
    bool nothing = std::visit(ChangesNothing{same_shape}, node.op) ||
                   (std::holds_alternative<Concat>(node.op) && node.inputs.size() == 1);
    if (nothing) {
      forward[node.outputs[0]] = node.inputs[0];
      changed = true;
    } else {
      kept.push_back(std::move(node));
    }
  }
  graph.nodes = std::move(kept);
  redirect(graph.outputs);
  return changed;
}

} // namespace lathe
