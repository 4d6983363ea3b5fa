// Reductions over axes, and the places of extremes.
#include "frontend/onnx/import.h"

#include <numeric>

namespace lathe::core::onnx {
namespace {

// The op of these axes and dimensions; axes are an input from opset `since` on.
Reduce reduction(Call &c, ReduceKind kind, int64_t since = 18) {
  const int64_t rank = c.rank(c.input(0));
  std::vector<int64_t> axes;
  if (c.opset >= since) {
    if (c.has(1)) axes = c.known_integers(1);
  } else {
    axes = c.integers("axes");
  }
  if (axes.empty() && !c.flag("noop_with_empty_axes")) {
    axes.resize(size_t(rank));
    std::iota(axes.begin(), axes.end(), int64_t{0});
  }
  return Reduce{kind, c.axes(axes, rank), c.flag("keepdims", true)};
}

template <ReduceKind kind, int64_t since = 18> Values reduce(Call &c) {
  return {c.add(reduction(c, kind, since), {c.input(0)})};
}
ValueId square(Call &c) { return c.binary(BinaryKind::mul, c.input(0), c.input(0)); }

Values reduce_l1(Call &c) {
  return {c.add(reduction(c, ReduceKind::sum), {c.unary(UnaryKind::abs, c.input(0))})};
}
Values reduce_l2(Call &c) {
  return {c.unary(UnaryKind::sqrt, c.add(reduction(c, ReduceKind::sum), {square(c)}))};
}
Values reduce_sum_square(Call &c) { return {c.add(reduction(c, ReduceKind::sum), {square(c)})}; }
Values reduce_log_sum(Call &c) {
  return {c.unary(UnaryKind::log, c.add(reduction(c, ReduceKind::sum), {c.input(0)}))};
}
// With the largest element taken out, so that no exponential overflows.
Values reduce_log_sum_exp(Call &c) {
  const ValueId x = c.input(0);
  Reduce most = reduction(c, ReduceKind::max), sum = most;
  sum.kind = ReduceKind::sum;
  bool empty = false;
  for (int64_t axis : most.axes) empty = empty || c.shape(x)[size_t(axis)] == 0;
  if (empty) return {c.unary(UnaryKind::log, c.add(sum, {x}))};
  const ValueId result = c.add(most, {x});
  most.keep_dims = true;
  const ValueId shifted = c.binary(BinaryKind::sub, x, c.add(most, {x}));
  const ValueId rest = c.unary(UnaryKind::log, c.add(sum, {c.unary(UnaryKind::exp, shifted)}));
  return {c.binary(BinaryKind::add, rest, result)};
}

template <ArgKind kind> Values arg(Call &c) {
  const ArgReduce op{kind, c.integer("axis", 0), c.flag("keepdims", true),
                     c.flag("select_last_index")};
  return {c.add(op, {c.input(0)})};
}

} // namespace

std::span<const HandlerEntry> reduce_handlers() {
  static constexpr HandlerEntry table[] = {
      {"ArgMax", arg<ArgKind::max>, "axis keepdims select_last_index@12"},
      {"ArgMin", arg<ArgKind::min>, "axis keepdims select_last_index@12"},
      {"ReduceL1", reduce_l1, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceL2", reduce_l2, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceLogSum", reduce_log_sum, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceLogSumExp", reduce_log_sum_exp, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceMax", reduce<ReduceKind::max>, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceMean", reduce<ReduceKind::mean>, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceMin", reduce<ReduceKind::min>, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceProd", reduce<ReduceKind::prod>, "axes@-17 keepdims noop_with_empty_axes@18"},
      {"ReduceSum", reduce<ReduceKind::sum, 13>, "axes@-12 keepdims noop_with_empty_axes@13"},
      {"ReduceSumSquare", reduce_sum_square, "axes@-17 keepdims noop_with_empty_axes@18"},
  };
  return table;
}

} // namespace lathe::core::onnx
