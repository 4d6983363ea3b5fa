// (conv(x, w) + b) * s -> conv(x, w * s) + b * s, for a constant s of one element per output
// channel; likewise / s, and for dense layers: the Scale layers and Mul nodes that batch norms of
// older frameworks come with.
// conv(x * s, w) -> conv(x, w * s), and conv(x + t, w) + b -> conv(x, w) + (b + sum of w * t), for
// constants of one element per input channel; likewise / s and - t: what networks do to pictures
// before anything else. A sum goes in only where nothing is padded: the zeros around a picture
// stand behind it.
#include "passes/channel_vector.h"
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe::core {
namespace {

template <LayerOp L>
bool scale(Graph &graph, Node &node, const L &layer, BinaryKind kind, const ConstantRef &factor) {
  if (L::weights == 0 || !layer.post.empty() || !graph.constant(node.inputs[1])) return false;
  if (layer.bias && !graph.constant(node.inputs[2])) return false;
  auto apply = [&](size_t input, const char *what, const ConstantRef &by) {
    node.inputs[input] = graph.add_constant(
        node.name + what,
        computed_constant(Binary{kind}, {graph.constant(node.inputs[input]), by}).value());
  };
  std::vector<int64_t> per_row(graph.shape(node.inputs[1]).size(), 1);
  per_row[0] = graph.shape(node.inputs[1])[0];
  apply(1, ".weight.scaled", computed_constant(Reshape{per_row}, {factor}).value());
  if (layer.bias) apply(2, ".bias.scaled", factor);
  return true;
}

// A step of arithmetic in front of a convolution: what it is done to, and the constant, as
// 1,C,1,1 beside weights of M,C,kh,kw.
struct Step {
  BinaryKind kind;
  ValueId x;
  ConstantRef vector;
};
std::optional<Step> step_of(const Graph &graph, const Node &node) {
  auto *op = std::get_if<Binary>(&node.op);
  const Type &type = graph.type(node.outputs[0]);
  if (!op || type.dtype != DType::f32 || type.shape.size() != 4) return std::nullopt;
  const size_t constant = graph.constant(node.inputs[1]) ? 1 : 0;
  const bool ordered = op->kind == BinaryKind::sub || op->kind == BinaryKind::div;
  const bool known = ordered || op->kind == BinaryKind::add || op->kind == BinaryKind::mul;
  if (!known || !graph.constant(node.inputs[constant]) || (ordered && constant == 0))
    return std::nullopt;
  const ValueId x = node.inputs[1 - constant];
  if (graph.constant(x) || graph.type(x) != type) return std::nullopt;
  ConstantRef vector = channel_vector(graph.constant(node.inputs[constant]), type.shape);
  if (!vector) return std::nullopt;
  return Step{op->kind, x, recipe(Reshape{{1, type.shape[1], 1, 1}}, {vector})};
}

bool absorb(Graph &graph, Node &node, Conv &conv, const Step &step) {
  const ConstantRef weight = graph.constant(node.inputs[1]);
  if (step.kind == BinaryKind::mul || step.kind == BinaryKind::div) {
    node.inputs[1] = graph.add_constant(node.name + ".weight.input_scaled",
                                        recipe(Binary{step.kind}, {weight, step.vector}));
    return true;
  }
  if (conv.pad != Pads{} || (conv.bias && !graph.constant(node.inputs[2]))) return false;
  ConstantRef sum = recipe(Reduce{ReduceKind::sum, {1, 2, 3}, false},
                           {recipe(Binary{BinaryKind::mul}, {weight, step.vector})});
  if (conv.bias)
    sum = recipe(Binary{step.kind}, {graph.constant(node.inputs[2]), sum});
  else if (step.kind == BinaryKind::sub)
    sum = recipe(Unary{UnaryKind::neg}, {sum});
  if (conv.bias) node.inputs.erase(node.inputs.begin() + 2);
  node.inputs.insert(node.inputs.begin() + 2,
                     graph.add_constant(node.name + ".bias.input_shifted", sum));
  conv.bias = true;
  return true;
}

int64_t fold_inputs(Graph &graph) {
  const Uses uses(graph);
  int64_t changed = 0;
  for (Node &node : graph.nodes) {
    auto *conv = std::get_if<Conv>(&node.op);
    if (!conv || conv->groups != 1 || !conv->pre.empty() || !graph.constant(node.inputs[1]))
      continue;
    while (true) {
      const int p = uses.producer[node.inputs[0]];
      if (p < 0 || uses.single_reader(node.inputs[0]) < 0) break;
      Node &before = graph.nodes[size_t(p)];
      std::optional<Step> step = step_of(graph, before);
      if (!step || !absorb(graph, node, *conv, *step)) break;
      node.inputs[0] = step->x;
      put_names_before(node, before);
      before.inputs.clear();
      ++changed;
    }
  }
  drop_emptied(graph);
  return changed;
}

} // namespace

int64_t fold_scale(Graph &graph) {
  const int64_t behind =
      absorb_into_layers(graph, [&](Node &layer, auto &op, const Node &product, size_t operand) {
        auto *binary = std::get_if<Binary>(&product.op);
        const bool scales = binary && (binary->kind == BinaryKind::mul ||
                                       (binary->kind == BinaryKind::div && operand == 0));
        if (!scales) return false;
        const ConstantRef &constant = graph.constant(product.inputs[1 - operand]);
        if (!constant) return false;
        ConstantRef factor = channel_vector(constant, graph.shape(product.outputs[0]));
        return factor && scale(graph, layer, op, binary->kind, factor);
      });
  return behind + fold_inputs(graph);
}

} // namespace lathe::core
