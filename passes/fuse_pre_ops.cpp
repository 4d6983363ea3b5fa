// layer(f(x)) -> layer(x, pre = f), for convolutions and pools, where f is an activation or
// arithmetic with a vector over the channels: the batch norm and ReLU in front of a convolution (He
// et al. 2016, "Identity Mappings in Deep Residual Networks"; DenseNet) are done while its input is
// brought in. Only what costs no more than a few instructions, since rows at the edge of a block,
// and overlapping windows of a pool, do it again.
#include "passes/channel_vector.h"
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe::core {
namespace {

constexpr size_t most_steps = 4;

bool is_cheap(const Unary &op) {
  switch (op.kind) {
  case UnaryKind::relu:
  case UnaryKind::leaky_relu:
  case UnaryKind::clip:
  case UnaryKind::hard_sigmoid:
  case UnaryKind::hard_swish:
  case UnaryKind::neg:
  case UnaryKind::abs:
    return true;
  default:
    return false;
  }
}
bool is_cheap(const Binary &op) { return op.kind != BinaryKind::pow && op.kind != BinaryKind::div; }

// The step that `node` would be in front of a layer, the operand that goes on through it, and the
// vector that it takes.
struct Step {
  FusedOp op;
  ValueId through;
  ConstantRef vector = nullptr;
};
std::optional<Step> as_step(const Graph &graph, const Node &node) {
  const Type &type = graph.type(node.outputs[0]);
  if (type.shape.size() != 4 || type.dtype != DType::f32) return std::nullopt;
  if (auto *unary = std::get_if<Unary>(&node.op))
    return is_cheap(*unary) ? std::optional(Step{{*unary}, node.inputs[0]}) : std::nullopt;
  auto *binary = std::get_if<Binary>(&node.op);
  if (!binary || !is_cheap(*binary)) return std::nullopt;
  const bool swapped = bool(graph.constant(node.inputs[0]));
  if (swapped && !commutes(binary->kind)) return std::nullopt;
  const ValueId through = node.inputs[swapped ? 1 : 0];
  const ConstantRef &constant = graph.constant(node.inputs[swapped ? 0 : 1]);
  if (!constant || graph.type(through) != type) return std::nullopt;
  ConstantRef vector = channel_vector(constant, type.shape);
  return vector ? std::optional(Step{{*binary}, through, vector}) : std::nullopt;
}

template <LayerOp L> int64_t take_steps(Graph &graph, const Uses &uses, int n, L &layer) {
  int64_t changed = 0;
  while (layer.pre.size() < most_steps) {
    Node &node = graph.nodes[size_t(n)];
    const int p = uses.producer[node.inputs[0]]; // its reader may be one that is in `pre` by now
    if (p < 0 || uses.single_reader(node.inputs[0]) < 0) break;
    Node &before = graph.nodes[size_t(p)];
    std::optional<Step> step = as_step(graph, before);
    if (!step) break;
    if (step->vector)
      node.inputs.insert(node.inputs.begin() + int64_t(pre_input(layer)),
                         graph.add_constant(before.name + ".vector", step->vector));
    layer.pre.insert(layer.pre.begin(), step->op);
    node.inputs[0] = step->through;
    put_names_before(node, before);
    before.inputs.clear();
    ++changed;
  }
  return changed;
}

} // namespace

int64_t fuse_pre_ops(Graph &graph) {
  const Uses uses(graph);
  int64_t changed = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    as_layer(graph.nodes[n].op, [&](auto &layer) {
      if constexpr (requires { layer.pre; }) changed += take_steps(graph, uses, int(n), layer);
      return true;
    });
  }
  drop_emptied(graph);
  return changed;
}

} // namespace lathe::core
