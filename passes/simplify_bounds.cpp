// max(x, a) and min(x, b) with numbers become clip; a clip of a clip becomes one; clip(x, 0, inf)
// becomes ReLU: what exporters write for ReLU and ReLU6 looks alike, and fuses.
#include "passes/pipeline.h"
#include "passes/take_over.h"

#include <limits>

namespace lathe::core {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// A number of the program: not of the weights, which may be bound later, or to others.
std::optional<float> number(const ConstantRef &constant) {
  if (!constant || constant->type.dtype != DType::f32) return std::nullopt;
  // One splat or one element, whatever the shape: a few steps back, since recipes may be deep.
  auto moved = [](const Constant &c) {
    return c.op &&
           (std::holds_alternative<Reshape>(*c.op) || std::holds_alternative<Expand>(*c.op));
  };
  const Constant *source = constant.get();
  for (int steps = 0; steps < 8 && moved(*source); ++steps) source = source->inputs[0].get();
  if (source->splat) return source->splat;
  if (element_count(source->type.shape) != 1 || !source->data.defined() || !source->name.empty())
    return std::nullopt;
  return source->data.f32()[0];
}

struct Bounds {
  float low = -infinity, high = infinity;
  float operator()(float x) const { return std::min(std::max(x, low), high); }
};

std::optional<Bounds> bounds_of(const Op &op) {
  auto *unary = std::get_if<Unary>(&op);
  if (!unary) return std::nullopt;
  if (unary->kind == UnaryKind::relu) return Bounds{0, infinity};
  if (unary->kind != UnaryKind::clip || !(unary->alpha <= unary->beta)) return std::nullopt;
  return Bounds{unary->alpha, unary->beta};
}
Unary as_unary(const Bounds &b) {
  if (b.low == 0 && b.high == infinity) return {UnaryKind::relu};
  return {UnaryKind::clip, b.low, b.high};
}

bool bound_by_number(const Graph &graph, Node &node) {
  auto *binary = std::get_if<Binary>(&node.op);
  if (!binary || (binary->kind != BinaryKind::min && binary->kind != BinaryKind::max)) return false;
  for (size_t side : {0u, 1u}) {
    auto bound = number(graph.constant(node.inputs[1 - side]));
    if (!bound || *bound != *bound) continue;
    if (graph.type(node.inputs[side]) != graph.type(node.outputs[0])) continue;
    node.op = binary->kind == BinaryKind::max ? as_unary({*bound, infinity})
                                              : as_unary({-infinity, *bound});
    node.inputs = {node.inputs[side]};
    return true;
  }
  return false;
}

} // namespace

int64_t simplify_bounds(Graph &graph) {
  Uses uses(graph);
  int64_t changed = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node &node = graph.nodes[n];
    if (node.inputs.empty()) continue;
    changed += bound_by_number(graph, node);
    auto outer = bounds_of(node.op);
    if (!outer) continue;
    if (!(std::get<Unary>(node.op) == as_unary(*outer))) {
      node.op = as_unary(*outer);
      ++changed;
    }
    const int producer = uses.producer[node.inputs[0]];
    if (producer < 0 || uses.single_reader(node.inputs[0]) != int(n)) continue;
    Node &first = graph.nodes[size_t(producer)];
    auto inner = bounds_of(first.op);
    if (!inner) continue;
    first.op = as_unary({(*outer)((*inner)(-infinity)), (*outer)((*inner)(infinity))});
    take_over(graph, uses, producer, int(n));
    ++changed;
  }
  drop_emptied(graph);
  return changed;
}

} // namespace lathe::core
