// conv(x, w) + b -> conv(x, w, b), for a constant b of one element per output channel; likewise for
// dense layers, and for a constant added to an existing bias.
#include "passes/channel_vector.h"
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe {
namespace {

template <typename Layer>
bool add_bias(Graph &graph, Node &node, Layer &layer, ConstantRef vector) {
  if (!layer.post.empty()) return false;
  if (layer.bias) {
    if (!graph.constant(node.inputs[2])) return false;
    vector = computed_constant(Binary{BinaryKind::add}, {graph.constant(node.inputs[2]), vector})
                 .value();
    node.inputs.resize(2);
  }
  layer.bias = true;
  node.inputs.push_back(graph.add_constant(node.name + ".bias", std::move(vector)));
  return true;
}

} // namespace

bool fuse_bias(Graph &graph) {
  Uses uses(graph);
  bool changed = false;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &sum = graph.nodes[n];
    auto *op = std::get_if<Binary>(&sum.op);
    if (!op || op->kind != BinaryKind::add) continue;
    size_t side = graph.constant(sum.inputs[0]) ? 1 : 0;
    const ConstantRef &constant = graph.constant(sum.inputs[1 - side]);
    int producer = uses.producer[sum.inputs[side]];
    if (!constant || producer < 0 || uses.single_reader(sum.inputs[side]) != int(n)) continue;
    Node &layer = graph.nodes[size_t(producer)];
    if (graph.type(layer.outputs[0]) != graph.type(sum.outputs[0])) continue;
    auto *conv = std::get_if<Conv>(&layer.op);
    auto *dense = std::get_if<Dense>(&layer.op);
    if (!conv && !dense) continue;
    ConstantRef vector = channel_vector(constant, graph.shape(sum.outputs[0]));
    if (!vector) continue;
    bool fused =
        conv ? add_bias(graph, layer, *conv, vector) : add_bias(graph, layer, *dense, vector);
    if (!fused) continue;
    take_over(graph, uses, producer, int(n));
    changed = true;
  }
  drop_emptied(graph);
  return changed;
}

} // namespace lathe
