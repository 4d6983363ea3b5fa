// A convolution over the whole picture makes one pixel: conv(x, w) -> dense(flatten(x),
// flatten(w)), whose weights are used where they lie. On a 1x1 map (squeeze and excitation; Hu et
// al. 2018) the flatten is free; otherwise it brings the channels to the front, and never moves
// weights.
#include "passes/pipeline.h"

namespace lathe::core {
namespace {

bool covers_all(const Graph &graph, const Node &node, const Conv &conv) {
  const Shape &x = graph.shape(node.inputs[0]);
  return conv.kernel == Size2{x[2], x[3]} && conv.pad == Pads{} && conv.groups == 1 &&
         conv.pre.empty();
}

} // namespace

int64_t convolutions_to_dense(Graph &graph) {
  int64_t changed = 0;
  Names names(graph);
  std::vector<Node> before = std::move(graph.nodes);
  graph.nodes.clear();
  for (Node &node : before) {
    auto *conv = std::get_if<Conv>(&node.op);
    if (!conv || !covers_all(graph, node, *conv)) {
      graph.nodes.push_back(std::move(node));
      continue;
    }
    ++changed;
    auto flat = [&](const std::string &what, ValueId id) {
      const Shape shape = graph.shape(id);
      const int64_t rows = shape[0], depth = shape[1] * shape[2] * shape[3];
      if (const ConstantRef constant = graph.constant(id))
        return graph.add_constant(node.name + what,
                                  computed_constant(Reshape{{rows, depth}}, {constant}).value());
      return graph.add_node(names.unused(node.name + what), Reshape{{0, depth}}, {id}, node.source)
          .value();
    };
    std::vector<ValueId> inputs{flat(".flat", node.inputs[0]), flat(".weight", node.inputs[1])};
    if (conv->bias) inputs.push_back(node.inputs[2]);
    for (size_t i = post_input(*conv); i < node.inputs.size(); ++i)
      inputs.push_back(flat(".operand", node.inputs[i]));
    const Shape y = graph.shape(node.outputs[0]);
    Node dense{node.name, Dense{conv->bias, conv->post}, inputs, {}, node.source, node.fused};
    graph.values.push_back({node.name + ".dense", {DType::f32, {y[0], y[1]}}, nullptr});
    dense.outputs = {ValueId(graph.values.size() - 1)};
    Node shaped{names.unused(node.name + ".map"),
                Reshape{{0, y[1], 1, 1}},
                dense.outputs,
                node.outputs,
                node.source,
                {}};
    graph.nodes.push_back(std::move(dense));
    graph.nodes.push_back(std::move(shaped));
  }
  return changed;
}

} // namespace lathe::core
