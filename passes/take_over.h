// What fusions share: a layer takes the place of the node that reads it; the walk of those that
// fold a node into the layer before it; and small questions about nodes.
#pragma once

#include "ir/graph.h"
#include "ir/op_facts.h"

#include <algorithm>

namespace lathe::core {

// `layer` makes the result of `reader` from now on, under the reader's name in `fused`; the reader
// is left without operands, for drop_emptied. `uses` stays right.
inline void take_over(Graph &graph, Uses &uses, int layer, int reader) {
  Node &kept = graph.nodes[size_t(layer)], &gone = graph.nodes[size_t(reader)];
  kept.fused.push_back(gone.name);
  kept.fused.insert(kept.fused.end(), gone.fused.begin(), gone.fused.end());
  std::swap(kept.outputs, gone.outputs);
  uses.producer[kept.outputs[0]] = layer;
  uses.producer[gone.outputs[0]] = -1;
  gone.inputs.clear();
}

// A recipe, for ops that are known to fit their inputs.
inline ConstantRef recipe(Op op, std::vector<ConstantRef> inputs) {
  return computed_constant(std::move(op), std::move(inputs)).value();
}

// The node that makes the first input of node `n`, if nothing else reads that; else null.
inline Node *only_source(Graph &graph, const Uses &uses, size_t n) {
  if (graph.nodes[n].inputs.empty()) return nullptr;
  const ValueId id = graph.nodes[n].inputs[0];
  const int p = uses.producer[id];
  return p >= 0 && uses.single_reader(id) == int(n) ? &graph.nodes[size_t(p)] : nullptr;
}

// The names of a node, and of all that were fused into it, go in front of those of another.
inline void put_names_before(Node &node, const Node &first) {
  node.fused.insert(node.fused.begin(), first.fused.begin(), first.fused.end());
  node.fused.insert(node.fused.begin(), first.name);
}

inline void drop_emptied(Graph &graph) {
  std::erase_if(graph.nodes, [](const Node &node) { return node.inputs.empty(); });
}

// Offers every node to the layer that makes one of its operands, if nothing else reads that and the
// node keeps its type. Where `absorb(layer, op of the layer, node, operand)` says that it has
// changed the layer to make the node's result, the layer takes over.
template <typename Absorb> int64_t absorb_into_layers(Graph &graph, const Absorb &absorb) {
  Uses uses(graph);
  int64_t changed = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &node = graph.nodes[n];
    for (size_t operand = 0; operand < node.inputs.size(); ++operand) {
      const ValueId id = node.inputs[operand];
      const int producer = uses.producer[id];
      if (producer < 0 || uses.single_reader(id) != int(n)) continue;
      if (graph.type(id) != graph.type(node.outputs[0])) continue;
      Node &layer = graph.nodes[size_t(producer)];
      if (!as_layer(layer.op, [&](auto &op) { return absorb(layer, op, node, operand); })) continue;
      take_over(graph, uses, producer, int(n));
      ++changed;
      break;
    }
  }
  drop_emptied(graph);
  return changed;
}

} // namespace lathe::core
