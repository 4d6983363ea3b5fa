// batch_norm(x) -> x * s + (shift - mean * s),  s = scale / sqrt(variance + epsilon): for those
// that no convolution took. The factors are nodes; with constant parameters, constant folding ends
// them.
#include "passes/pipeline.h"

#include <cassert>

namespace lathe::core {

int64_t lower_batch_norm(Graph &graph) {
  int64_t changed = 0;
  Names names(graph);
  std::vector<Node> before = std::move(graph.nodes);
  graph.nodes.clear();
  for (Node &node : before) {
    auto *op = std::get_if<BatchNorm>(&node.op);
    if (!op) {
      graph.nodes.push_back(std::move(node));
      continue;
    }
    ++changed;
    auto append = [&](const char *suffix, Op step, std::vector<ValueId> inputs) {
      return graph
          .add_node(names.unused(node.name + suffix), std::move(step), std::move(inputs),
                    node.source)
          .value();
    };
    auto binary = [&](const char *suffix, BinaryKind kind, ValueId a, ValueId b) {
      return append(suffix, Binary{kind}, {a, b});
    };
    ValueId epsilon = graph.add_constant(node.name + ".epsilon", splat_constant(op->epsilon, {1}));
    ValueId variance = binary(".variance", BinaryKind::add, node.inputs[4], epsilon);
    ValueId deviation = append(".deviation", Unary{UnaryKind::sqrt}, {variance});
    ValueId factor = binary(".factor", BinaryKind::div, node.inputs[1], deviation);
    ValueId moved = binary(".moved_mean", BinaryKind::mul, node.inputs[3], factor);
    ValueId shift = binary(".shift", BinaryKind::sub, node.inputs[2], moved);
    const Shape &x = graph.shape(node.inputs[0]);
    std::vector<int64_t> along_channels(x.size() - 1, 1); // C,1,1,...
    along_channels[0] = x[1];
    ValueId scaled = binary(".scaled", BinaryKind::mul, node.inputs[0],
                            append(".factor_c", Reshape{along_channels}, {factor}));
    ValueId channel_shift = append(".shift_c", Reshape{along_channels}, {shift});
    graph.nodes.push_back({node.name,
                           Binary{BinaryKind::add},
                           {scaled, channel_shift},
                           node.outputs,
                           node.source,
                           node.fused});
  }
  return changed;
}

} // namespace lathe::core
