// What a model is made of: parameters, multiplies, weighted layers.
#include "ir/graph.h"
#include "ir/op_facts.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

namespace lathe::core {
namespace {

// Counts of absurd models stay at the largest number instead of wrapping.
int64_t sum(int64_t a, int64_t b) {
  int64_t result = 0;
  return __builtin_add_overflow(a, b, &result) ? std::numeric_limits<int64_t>::max() : result;
}
int64_t product(int64_t a, int64_t b) {
  int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ? std::numeric_limits<int64_t>::max() : result;
}

using Seen = std::unordered_set<const Constant *>;

// Elements of a node's learnable constants that no node before it had: not the running statistics
// of batch norm, and not numbers that are part of the program rather than of the weights.
int64_t parameters_of(const Graph &graph, const Node &node, Seen &seen) {
  const size_t inputs = std::min(facts_of(node.op).learnt, node.inputs.size());
  int64_t total = 0;
  for (size_t i = 0; i < inputs; ++i) {
    const ConstantRef &constant = graph.constant(node.inputs[i]);
    if (!constant || (constant->name.empty() && !constant->op)) continue;
    if (seen.insert(constant.get()).second)
      total = sum(total, element_count(graph.shape(node.inputs[i])));
  }
  return total;
}

// Multiplies of convolutions and dense layers, taps on padding included, per picture.
int64_t multiplies_of(const Graph &graph, const Node &node) {
  const auto weights = weights_of(node.op);
  if (!weights) return 0;
  const Shape &weight = graph.shape(node.inputs[*weights]), &result = graph.shape(node.outputs[0]);
  if (result[0] == 0) return 0;
  return product(element_count(result) / result[0], element_count(weight) / weight[0]);
}

} // namespace

GraphSummary summarise(const Graph &graph) {
  GraphSummary summary;
  // The longest path counted in weighted layers: shortcuts and branches do not add to the depth
  // that names a network (152 in ResNet-152, 22 in GoogLeNet).
  std::vector<int64_t> depth(graph.values.size(), 0);
  Seen learnable, stored;
  for (const Node &node : graph.nodes) {
    LayerSummary layer{node.name, op_name(node.op), graph.shape(node.outputs[0]),
                       parameters_of(graph, node, learnable), multiplies_of(graph, node)};
    summary.parameters = sum(summary.parameters, layer.parameters);
    summary.multiplies = sum(summary.multiplies, layer.multiplies);
    int64_t deepest = 0;
    for (ValueId id : node.inputs) deepest = std::max(deepest, depth[id]);
    for (ValueId id : node.outputs) depth[id] = deepest + weights_of(node.op).has_value();
    summary.layers.push_back(std::move(layer));
  }
  for (ValueId id : graph.outputs)
    summary.weighted_layers = std::max(summary.weighted_layers, depth[id]);
  for (const Value &value : graph.values)
    if (value.constant && stored.insert(value.constant.get()).second)
      summary.weight_bytes =
          sum(summary.weight_bytes,
              element_count(value.type.shape) * static_cast<int64_t>(size_of(value.type.dtype)));
  return summary;
}

} // namespace lathe::core
