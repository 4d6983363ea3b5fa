// (conv(x, w) + b) * s -> conv(x, w * s) + b * s, for a constant s of one element per output
// channel; likewise / s, and for dense layers: the Scale layers and Mul nodes that batch norms of
// older frameworks come with.
#include "passes/channel_vector.h"
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe {
namespace {

template <typename Layer>
bool scale(Graph &graph, Node &node, const Layer &layer, BinaryKind kind,
           const ConstantRef &factor) {
  if (!layer.post.empty() || !graph.constant(node.inputs[1])) return false;
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

bool fold_scale(Graph &graph) {
  Uses uses(graph);
  bool changed = false;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &product = graph.nodes[n];
    auto *op = std::get_if<Binary>(&product.op);
    if (!op || (op->kind != BinaryKind::mul && op->kind != BinaryKind::div)) continue;
    const size_t side = op->kind == BinaryKind::mul && graph.constant(product.inputs[0]) ? 1 : 0;
    const ConstantRef &constant = graph.constant(product.inputs[1 - side]);
    const int producer = uses.producer[product.inputs[side]];
    if (!constant || producer < 0 || uses.single_reader(product.inputs[side]) != int(n)) continue;
    Node &layer = graph.nodes[size_t(producer)];
    if (graph.type(layer.outputs[0]) != graph.type(product.outputs[0])) continue;
    auto *conv = std::get_if<Conv>(&layer.op);
    auto *dense = std::get_if<Dense>(&layer.op);
    if (!conv && !dense) continue;
    ConstantRef factor = channel_vector(constant, graph.shape(product.outputs[0]));
    if (!factor) continue;
    const bool folded = conv ? scale(graph, layer, *conv, op->kind, factor)
                             : scale(graph, layer, *dense, op->kind, factor);
    if (!folded) continue;
    take_over(graph, uses, producer, int(n));
    changed = true;
  }
  drop_emptied(graph);
  return changed;
}

} // namespace lathe
