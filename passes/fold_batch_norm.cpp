// batch_norm(conv(x, w) + b) -> conv(x, w * s) + (b - mean) * s + shift,  s = scale / sqrt(var +
// eps), for convolutions and dense layers that nothing else reads. Weights become recipes.
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe::core {
namespace {

ConstantRef binary(BinaryKind kind, ConstantRef a, ConstantRef b) {
  return recipe(Binary{kind}, {std::move(a), std::move(b)});
}

template <LayerOp L>
bool fold_into(Graph &graph, Node &node, L &layer, const Node &norm, const BatchNorm &op) {
  if (L::weights == 0 || !layer.post.empty() || !graph.constant(node.inputs[1])) return false;
  if (layer.bias && !graph.constant(node.inputs[2])) return false;
  for (size_t i = 1; i < 5; ++i)
    if (!graph.constant(norm.inputs[i])) return false;
  auto parameter = [&](size_t i) { return graph.constant(norm.inputs[i]); };
  ConstantRef deviation =
      recipe(Unary{UnaryKind::sqrt},
             {binary(BinaryKind::add, parameter(4), splat_constant(op.epsilon, {1}))});
  ConstantRef factor = binary(BinaryKind::div, parameter(1), deviation);

  const ConstantRef &weight = graph.constant(node.inputs[1]);
  std::vector<int64_t> per_row(weight->type.shape.size(), 1);
  per_row[0] = weight->type.shape[0];
  ConstantRef scaled = binary(BinaryKind::mul, weight, recipe(Reshape{per_row}, {factor}));
  ConstantRef centred = layer.bias
                            ? binary(BinaryKind::sub, graph.constant(node.inputs[2]), parameter(3))
                            : recipe(Unary{UnaryKind::neg}, {parameter(3)});
  ConstantRef bias =
      binary(BinaryKind::add, binary(BinaryKind::mul, centred, factor), parameter(2));

  if (layer.bias) node.inputs.erase(node.inputs.begin() + 2);
  node.inputs[1] = graph.add_constant(node.name + ".weight*" + norm.name, scaled);
  node.inputs.insert(node.inputs.begin() + 2,
                     graph.add_constant(node.name + ".bias*" + norm.name, bias));
  layer.bias = true;
  return true;
}

} // namespace

int64_t fold_batch_norm(Graph &graph) {
  return absorb_into_layers(graph, [&](Node &layer, auto &op, const Node &norm, size_t operand) {
    auto *batch_norm = std::get_if<BatchNorm>(&norm.op);
    return batch_norm && operand == 0 && fold_into(graph, layer, op, norm, *batch_norm);
  });
}

} // namespace lathe::core
