// f(conv(x)) -> conv(x, post = f), for activations and for elementwise arithmetic with a tensor of
// the same shape that is ready before the convolution runs (a residual add); likewise for dense
// layers and pools.
#include "passes/pipeline.h"
#include "passes/take_over.h"

#include <algorithm>

namespace lathe::core {
namespace {

constexpr size_t most_steps = 8;

std::vector<FusedOp> *post_of(Op &op) {
  std::vector<FusedOp> *post = nullptr;
  as_layer(op, [&](auto &layer) { return bool(post = &layer.post); });
  return post;
}

// The step that `reader` would be behind layer number `layer`, and its further operand.
struct Step {
  FusedOp op;
  ValueId operand = no_value;
};
std::optional<Step> as_step(const Graph &graph, const Uses &uses, int layer, const Node &reader) {
  ValueId result = graph.nodes[size_t(layer)].outputs[0];
  if (auto *unary = std::get_if<Unary>(&reader.op)) return Step{{*unary}};
  auto *binary = std::get_if<Binary>(&reader.op);
  if (!binary) return std::nullopt;
  bool first = reader.inputs[0] == result;
  if (!first && !commutes(binary->kind)) return std::nullopt;
  ValueId other = reader.inputs[first ? 1 : 0];
  bool ready = !graph.constant(other) && uses.producer[other] < layer;
  if (!ready || graph.type(other) != graph.type(result)) return std::nullopt;
  return Step{{*binary}, other};
}

} // namespace

int64_t fuse_post_ops(Graph &graph) {
  Uses uses(graph);
  int64_t changed = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &layer = graph.nodes[n];
    std::vector<FusedOp> *post = post_of(layer.op);
    if (!post) continue;
    while (post->size() < most_steps) {
      int r = uses.single_reader(layer.outputs[0]);
      if (r < 0) break;
      Node &reader = graph.nodes[size_t(r)];
      std::optional<Step> step = as_step(graph, uses, int(n), reader);
      if (!step) break;
      post->push_back(step->op);
      if (step->operand != no_value) {
        layer.inputs.push_back(step->operand);
        std::ranges::replace(uses.readers[step->operand], r, int(n));
      }
      take_over(graph, uses, int(n), r);
      ++changed;
    }
  }
  drop_emptied(graph);
  return changed;
}

} // namespace lathe::core
