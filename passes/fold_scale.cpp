// (conv(x, w) + b) * s -> conv(x, w * s) + b * s, for a constant s of one element per output
// channel; likewise / s, and for dense layers: the Scale layers and Mul nodes that batch norms of
// older frameworks come with.
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

} // namespace

int64_t fold_scale(Graph &graph) {
  return absorb_into_layers(graph, [&](Node &layer, auto &op, const Node &product, size_t operand) {
    auto *binary = std::get_if<Binary>(&product.op);
    const bool scales = binary && (binary->kind == BinaryKind::mul ||
                                   (binary->kind == BinaryKind::div && operand == 0));
    if (!scales) return false;
    const ConstantRef &constant = graph.constant(product.inputs[1 - operand]);
    if (!constant) return false;
    ConstantRef factor = channel_vector(constant, graph.shape(product.outputs[0]));
    return factor && scale(graph, layer, op, binary->kind, factor);
  });
}

} // namespace lathe::core
