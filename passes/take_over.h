// The one rewrite that all fusions share: a layer takes the place of the node that reads it.
#pragma once

#include "ir/graph.h"

#include <algorithm>

namespace lathe {

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

inline void drop_emptied(Graph &graph) {
  std::erase_if(graph.nodes, [](const Node &node) { return node.inputs.empty(); });
}

} // namespace lathe
