// conv(x, w) + b -> conv(x, w, b), for a constant b of one element per output channel; likewise for
// dense layers and pools, and for a constant added to an existing bias.
#include "passes/channel_vector.h"
#include "passes/pipeline.h"
#include "passes/take_over.h"

namespace lathe::core {
namespace {

template <LayerOp L> bool add_bias(Graph &graph, Node &node, L &layer, ConstantRef vector) {
  if (!layer.post.empty()) return false;
  const size_t place = bias_input(layer);
  if (layer.bias) {
    if (!graph.constant(node.inputs[place])) return false;
    vector =
        computed_constant(Binary{BinaryKind::add}, {graph.constant(node.inputs[place]), vector})
            .value();
    node.inputs.erase(node.inputs.begin() + int64_t(place));
  }
  layer.bias = true;
  node.inputs.insert(node.inputs.begin() + int64_t(place),
                     graph.add_constant(node.name + ".bias", std::move(vector)));
  return true;
}

} // namespace

int64_t fuse_bias(Graph &graph) {
  return absorb_into_layers(graph, [&](Node &layer, auto &op, const Node &sum, size_t operand) {
    auto *binary = std::get_if<Binary>(&sum.op);
    if (!binary || binary->kind != BinaryKind::add) return false;
    const ConstantRef &constant = graph.constant(sum.inputs[1 - operand]);
    if (!constant) return false;
    ConstantRef vector = channel_vector(constant, graph.shape(sum.outputs[0]));
    return vector && add_bias(graph, layer, op, vector);
  });
}

} // namespace lathe::core
