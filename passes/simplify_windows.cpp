// Windows in their simplest form: zeros padded in front of a convolution or average pool become its
// own padding; a global pool, and a mean or maximum over the picture, become a pool whose window is
// the whole picture.
#include "passes/pipeline.h"

namespace lathe::core {
namespace {

// The rows and columns that a Pad adds, if it adds zeros, and only these.
std::optional<Pads> zero_padding(const Node &node) {
  auto *pad = std::get_if<Pad>(&node.op);
  if (!pad || pad->value != 0 || pad->before.size() != 4) return std::nullopt;
  if (pad->before[0] + pad->after[0] + pad->before[1] + pad->after[1] > 0) return std::nullopt;
  return Pads{pad->before[2], pad->before[3], pad->after[2], pad->after[3]};
}

bool absorb(Conv &conv, const Pads &p) {
  conv.pad = {conv.pad.top + p.top, conv.pad.left + p.left, conv.pad.bottom + p.bottom,
              conv.pad.right + p.right};
  return true;
}
// The mean counted the zeros, and no window may see nothing else.
bool absorb(Pool &pool, const Pads &p) {
  const bool fits = std::max(p.top, p.bottom) < pool.kernel.h &&
                    std::max(p.left, p.right) < pool.kernel.w && pool.dilation == Size2{};
  if (pool.kind != PoolKind::average || pool.pad != Pads{} || pool.ceil_mode || !fits) return false;
  pool.pad = p;
  pool.count_include_pad = true;
  return true;
}

bool absorb_padding(Graph &graph, const Uses &uses, Node &node) {
  auto *conv = std::get_if<Conv>(&node.op);
  auto *pool = std::get_if<Pool>(&node.op);
  const int producer = uses.producer[node.inputs[0]];
  if ((!conv && !pool) || producer < 0) return false;
  const Node &pad = graph.nodes[size_t(producer)];
  auto padding = zero_padding(pad);
  if (!padding) return false;
  Op op = node.op;
  if (auto *own = std::get_if<Conv>(&op); own && !absorb(*own, *padding)) return false;
  if (auto *own = std::get_if<Pool>(&op); own && !absorb(*own, *padding)) return false;
  std::vector<Type> types{graph.type(pad.inputs[0])};
  for (size_t i = 1; i < node.inputs.size(); ++i) types.push_back(graph.type(node.inputs[i]));
  if (!infer_types(op, types)) return false; // windows have their limits
  node.op = op;
  node.inputs[0] = pad.inputs[0];
  node.fused.push_back(pad.name);
  return true;
}

// A pool whose only window is the whole picture.
std::optional<Pool> as_whole_pool(const Graph &graph, const Node &node) {
  const Shape &x = graph.shape(node.inputs[0]), &y = graph.shape(node.outputs[0]);
  if (x.size() != 4 || y.size() != 4 || y[2] != 1 || y[3] != 1) return std::nullopt;
  Pool whole;
  whole.kernel = whole.stride = {x[2], x[3]};
  if (auto *pool = std::get_if<GlobalPool>(&node.op)) {
    whole.kind = pool->kind;
    return whole;
  }
  auto *reduce = std::get_if<Reduce>(&node.op);
  if (!reduce || reduce->axes.size() != 2 || graph.type(node.outputs[0]).dtype != DType::f32 ||
      x[2] * x[3] == 0)
    return std::nullopt;
  for (int64_t axis : reduce->axes)
    if (axis_index(axis, 4) < 2) return std::nullopt;
  if (reduce->kind != ReduceKind::mean && reduce->kind != ReduceKind::max) return std::nullopt;
  whole.kind = reduce->kind == ReduceKind::mean ? PoolKind::average : PoolKind::max;
  return whole;
}

} // namespace

int64_t simplify_windows(Graph &graph) {
  const Uses uses(graph);
  int64_t changed = 0;
  for (Node &node : graph.nodes) {
    if (node.inputs.empty()) continue;
    while (absorb_padding(graph, uses, node)) ++changed;
    const Type &x = graph.type(node.inputs[0]);
    if (auto pool = as_whole_pool(graph, node); pool && infer_types(*pool, {&x, 1})) {
      node.op = *pool;
      ++changed;
    }
  }
  return changed;
}

} // namespace lathe::core
