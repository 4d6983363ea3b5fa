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
  return absorb_into_layers(graph, [&](Node &layer, auto &op, const Node &sum, size_t operand) {
    auto *binary = std::get_if<Binary>(&sum.op);
    if (!binary || binary->kind != BinaryKind::add) return false;
    const ConstantRef &constant = graph.constant(sum.inputs[1 - operand]);
    if (!constant) return false;
    ConstantRef vector = channel_vector(constant, graph.shape(sum.outputs[0]));
    return vector && add_bias(graph, layer, op, vector);
  });
}

} // namespace lathe
