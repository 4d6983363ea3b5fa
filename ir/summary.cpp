// What a model is made of: parameters, multiplies, weighted layers.
#include "ir/graph.h"

#include <algorithm>

namespace lathe {
namespace {

// Learnable elements among a node's constants: running statistics of batch norm are not.
int64_t parameters_of(const Graph &graph, const Node &node) {
  size_t inputs = std::holds_alternative<BatchNorm>(node.op) ? 3 : node.inputs.size();
  int64_t total = 0;
  for (size_t i = 1; i < inputs; ++i)
    if (graph.constant(node.inputs[i])) total += element_count(graph.shape(node.inputs[i]));
  return total;
}

// Multiplies of convolutions and dense layers, taps on padding included, per picture.
int64_t multiplies_of(const Graph &graph, const Node &node) {
  if (!std::holds_alternative<Conv>(node.op) && !std::holds_alternative<Dense>(node.op)) return 0;
  const Shape &weight = graph.shape(node.inputs[1]), &result = graph.shape(node.outputs[0]);
  if (element_count(result) <= 0) return 0;
  int64_t depth = element_count(weight) / std::max<int64_t>(1, weight[0]);
  return element_count(result) / result[0] * depth;
}

} // namespace

GraphSummary summarise(const Graph &graph) {
  GraphSummary summary;
  // The longest path counted in weighted layers: shortcuts and branches do not add to the depth
  // that names a network (152 in ResNet-152, 22 in GoogLeNet).
  std::vector<int64_t> depth(graph.values.size(), 0);
  for (const Node &node : graph.nodes) {
    LayerSummary layer{node.name, op_name(node.op), graph.shape(node.outputs[0]),
                       parameters_of(graph, node), multiplies_of(graph, node)};
    summary.parameters += layer.parameters;
    summary.multiplies += layer.multiplies;
    bool weighted = std::holds_alternative<Conv>(node.op) || std::holds_alternative<Dense>(node.op);
    int64_t deepest = 0;
    for (ValueId id : node.inputs) deepest = std::max(deepest, depth[id]);
    for (ValueId id : node.outputs) depth[id] = deepest + weighted;
    summary.layers.push_back(std::move(layer));
  }
  for (ValueId id : graph.outputs)
    summary.weighted_layers = std::max(summary.weighted_layers, depth[id]);
  std::vector<const Constant *> seen;
  for (const Value &value : graph.values) {
    if (!value.constant || std::ranges::count(seen, value.constant.get())) continue;
    seen.push_back(value.constant.get());
    summary.weight_bytes += element_count(value.type.shape) * int64_t(size_of(value.type.dtype));
  }
  return summary;
}

} // namespace lathe
