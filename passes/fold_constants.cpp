// op(constants) -> constant: composes recipes; no data is touched here.
#include "passes/pipeline.h"

#include <algorithm>

namespace lathe::core {
namespace {

// The recipe of result `index` of a node whose operands are all constants.
Result<ConstantRef> recipe(const Graph &graph, const Node &node, size_t index) {
  std::vector<ConstantRef> inputs;
  for (ValueId id : node.inputs) inputs.push_back(graph.constant(id));
  if (auto *split = std::get_if<Split>(&node.op)) {
    int64_t begin = 0;
    for (size_t i = 0; i < index; ++i) begin += split->sizes[i];
    return computed_constant(Slice{{split->axis}, {begin}, {begin + split->sizes[index]}, {1}},
                             inputs);
  }
  return computed_constant(node.op, std::move(inputs));
}

} // namespace

int64_t fold_constants(Graph &graph) {
  int64_t changed = 0;
  std::vector<Node> kept;
  for (Node &node : graph.nodes) {
    bool constant =
        std::ranges::all_of(node.inputs, [&](ValueId id) { return graph.constant(id) != nullptr; });
    if (!constant) {
      kept.push_back(std::move(node));
      continue;
    }
    for (size_t i = 0; i < node.outputs.size(); ++i)
      graph.values[node.outputs[i]].constant = recipe(graph, node, i).value();
    ++changed;
  }
  graph.nodes = std::move(kept);
  return changed;
}

} // namespace lathe::core
