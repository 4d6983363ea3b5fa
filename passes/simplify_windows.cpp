// Windows in their simplest form: zeros padded in front of a convolution or average pool become its
// own padding; a pool of the whole picture, and a mean or maximum over it, become a global pool.
#include "passes/pipeline.h"

namespace lathe {
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
  if (!padding || !(conv ? absorb(*conv, *padding) : absorb(*pool, *padding))) return false;
  node.inputs[0] = pad.inputs[0];
  node.fused.push_back(pad.name);
  return true;
}

std::optional<GlobalPool> as_global_pool(const Graph &graph, const Node &node) {
  const Shape &x = graph.shape(node.inputs[0]), &y = graph.shape(node.outputs[0]);
  if (x.size() != 4 || y.size() != 4 || y[2] != 1 || y[3] != 1) return std::nullopt;
  if (auto *pool = std::get_if<Pool>(&node.op)) {
    const bool whole = pool->kernel == Size2{x[2], x[3]} && pool->pad == Pads{} &&
                       pool->dilation == Size2{} && pool->kind != PoolKind::sum;
    return whole ? std::optional(GlobalPool{pool->kind}) : std::nullopt;
  }
  auto *reduce = std::get_if<Reduce>(&node.op);
  if (!reduce || reduce->axes.size() != 2 || graph.type(node.outputs[0]).dtype != DType::f32)
    return std::nullopt;
  for (int64_t axis : reduce->axes)
    if (axis_index(axis, 4) < 2) return std::nullopt;
  if (reduce->kind == ReduceKind::mean) return GlobalPool{PoolKind::average};
  if (reduce->kind == ReduceKind::max && x[2] * x[3] > 0) return GlobalPool{PoolKind::max};
  return std::nullopt;
}

} // namespace

bool simplify_windows(Graph &graph) {
  const Uses uses(graph);
  bool changed = false;
  for (Node &node : graph.nodes) {
    if (node.inputs.empty()) continue;
    changed |= absorb_padding(graph, uses, node);
    if (auto pool = as_global_pool(graph, node)) {
      node.op = *pool;
      changed = true;
    }
  }
  return changed;
}

} // namespace lathe
