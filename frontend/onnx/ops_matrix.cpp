// Matrix products and normalisations.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <fmt/format.h>

namespace lathe::core::onnx {
namespace {

ValueId transposed(Call &c, ValueId matrix) { return c.transpose(matrix, {1, 0}); }

void check_matrix(Call &c, ValueId x, Bytes what) {
  if (c.rank(x) != 2)
    c.invalid(fmt::format("{} is no matrix", what), "2 dimensions", to_string(c.shape(x)));
}

// alpha * A' * B' + beta * C
Values gemm(Call &c) {
  ValueId a = c.input(0), b = c.input(1);
  check_matrix(c, a, "A");
  check_matrix(c, b, "B");
  if (c.flag("transA")) a = transposed(c, a);
  if (!c.flag("transB")) b = transposed(c, b); // a dense layer's weight has a row per output
  const float alpha = c.number("alpha", 1), beta = c.number("beta", 1);
  if (alpha != 1) b = c.binary(BinaryKind::mul, b, c.scalar(alpha));
  if (!c.has(2)) return {c.add(Dense{}, {a, b})};
  ValueId addend = c.input(2);
  if (beta != 1) addend = c.binary(BinaryKind::mul, addend, c.scalar(beta));
  const int64_t outputs = c.shape(b)[0];
  const Shape s = c.shape(addend);
  if (s == Shape{outputs} || s == Shape{1, outputs})
    return {c.add(Dense{.bias = true, .post = {}}, {a, b, c.reshape(addend, {outputs})})};
  return {c.binary(BinaryKind::add, c.add(Dense{}, {a, b}), addend)};
}

// Products of stacks of matrices, one by one.
ValueId stacked(Call &c, ValueId a, ValueId b, const Shape &stack) {
  const int64_t count = element_count(stack);
  constexpr int64_t most = 4096;
  if (count > most)
    c.unsupported("too large a stack of matrices", fmt::format("at most {}", most),
                  fmt::format("{}", count));
  auto spread = [&](ValueId x) {
    Shape s = c.shape(x), wide = stack;
    wide.insert(wide.end(), s.end() - 2, s.end());
    x = c.shape(x) == wide ? x : c.add(Expand{wide}, {x});
    return c.reshape(x, {count, s[s.size() - 2], s.back()});
  };
  a = spread(a);
  b = spread(b);
  const Shape sa = c.shape(a), sb = c.shape(b);
  Values parts;
  for (int64_t i = 0; i < count; ++i) {
    ValueId left = c.reshape(c.slice(a, 0, i, i + 1), {sa[1], sa[2]});
    ValueId right = c.reshape(c.slice(b, 0, i, i + 1), {sb[1], sb[2]});
    ValueId product = c.add(Dense{}, {left, transposed(c, right)});
    parts.push_back(c.reshape(product, {1, sa[1], sb[2]}));
  }
  ValueId all = parts.size() == 1 ? parts[0] : c.add(Concat{0}, parts);
  Shape result = stack;
  result.insert(result.end(), {sa[1], sb[2]});
  return c.reshape(all, result);
}

// As NumPy's matmul: vectors become matrices, the rest broadcasts.
Values matmul(Call &c) {
  ValueId a = c.input(0), b = c.input(1);
  const Shape sa = c.shape(a), sb = c.shape(b);
  if (sa.empty() || sb.empty()) c.invalid("a product of scalars", "1 dimension or more");
  if (sa.size() == 1) a = c.reshape(a, {1, sa[0]});
  if (sb.size() == 1) b = c.reshape(b, {sb[0], 1});
  const Shape ma = c.shape(a), mb = c.shape(b);
  if (ma.back() != mb[mb.size() - 2])
    c.invalid("the matrices do not fit", to_string(sa), to_string(sb));
  ValueId y;
  if (mb.size() == 2) { // one matrix for all rows
    const int64_t depth = ma.back(), rows = depth == 0 ? 0 : element_count(ma) / depth;
    y = c.add(Dense{}, {c.reshape(a, {rows, depth}), transposed(c, b)});
    Shape shape(ma.begin(), ma.end() - 1);
    shape.push_back(mb[1]);
    y = c.reshape(y, shape);
  } else {
    auto stack = broadcast(Shape(ma.begin(), ma.end() - 2), Shape(mb.begin(), mb.end() - 2));
    if (!stack) c.invalid("the matrices do not fit", to_string(sa), to_string(sb));
    y = stacked(c, a, b, *stack);
  }
  Shape result = c.shape(y);
  if (sb.size() == 1) result.pop_back();
  if (sa.size() == 1) result.erase(result.end() - (sb.size() == 1 ? 1 : 2));
  return {c.reshape(y, result)};
}

// --- Normalisations

Values batch_normalization(Call &c) {
  const ValueId x = c.input(0);
  bool training = c.flag("training_mode");
  for (size_t i = 1; i < c.output_count(); ++i) training = training || c.wants(i);
  if (training) c.unsupported("batch normalisation in training mode", Obstacle::training_mode);
  if (c.opset < 9 && !c.flag("spatial", true) && c.rank(x) > 2)
    c.unsupported("batch normalisation of every pixel by itself (spatial = 0)");
  const BatchNorm op{c.number("epsilon", 1e-5f)};
  return {c.add(op, {x, c.input(1), c.input(2), c.input(3), c.input(4)})};
}

// (x - mean) / sqrt(variance + epsilon) over some axes; with the mean, and one over the root.
struct Standard {
  ValueId value, mean, inverse;
};
Standard standardised(Call &c, ValueId x, const std::vector<int64_t> &axes) {
  auto mean = [&](ValueId v) { return c.add(Reduce{ReduceKind::mean, axes}, {v}); };
  const ValueId centre = mean(x), centred = c.binary(BinaryKind::sub, x, centre);
  const ValueId variance = mean(c.binary(BinaryKind::mul, centred, centred));
  const ValueId root = c.unary(
      UnaryKind::sqrt, c.binary(BinaryKind::add, variance, c.scalar(c.number("epsilon", 1e-5f))));
  const ValueId inverse = c.binary(BinaryKind::div, c.scalar(1), root);
  return {c.binary(BinaryKind::mul, centred, inverse), centre, inverse};
}
std::vector<int64_t> axes_from(Call &c, ValueId x, int64_t first) {
  std::vector<int64_t> axes;
  for (int64_t d = first; d < c.rank(x); ++d) axes.push_back(d);
  return axes;
}

// Statistics of each picture and channel (Ulyanov et al. 2016).
Values instance_normalization(Call &c) {
  const ValueId x = c.input(0);
  const int64_t rank = c.rank(x);
  if (rank < 3) c.invalid("the input has the wrong rank", "3 dimensions or more");
  const ValueId unit = standardised(c, x, axes_from(c, x, 2)).value;
  const ValueId scaled = c.binary(BinaryKind::mul, unit, c.along_channels(c.input(1), rank));
  return {c.binary(BinaryKind::add, scaled, c.along_channels(c.input(2), rank))};
}

// Statistics of everything from an axis on (Ba et al. 2016).
Values layer_normalization(Call &c) {
  const ValueId x = c.input(0);
  const int64_t axis = c.axis(c.integer("axis", -1), c.rank(x));
  const Standard s = standardised(c, x, axes_from(c, x, axis));
  ValueId y = c.binary(BinaryKind::mul, s.value, c.input(1));
  if (c.has(2)) y = c.binary(BinaryKind::add, y, c.input(2));
  return {y, s.mean, s.inverse};
}

// Statistics of each picture and group of channels (Wu and He 2018). Scale and bias belong to
// groups before opset 21, to channels from then on.
Values group_normalization(Call &c) {
  const ValueId x = c.input(0);
  const Shape s = c.shape(x);
  const int64_t groups = c.integer("num_groups", 0);
  if (s.size() < 3) c.invalid("the input has the wrong rank", "3 dimensions or more");
  if (groups < 1 || s[1] % groups)
    c.invalid("channels do not divide into groups", fmt::format("a multiple of {}", groups),
              fmt::format("{}", s[1]));
  const ValueId apart = c.reshape(x, {s[0], groups, element_count(s) / (s[0] * groups)});
  const ValueId unit = standardised(c, apart, {2}).value;
  auto apply = [&](ValueId y) {
    ValueId scaled = c.binary(BinaryKind::mul, y, c.along_channels(c.input(1), c.rank(y)));
    return c.binary(BinaryKind::add, scaled, c.along_channels(c.input(2), c.rank(y)));
  };
  return {c.opset < 21 ? c.reshape(apply(unit), s) : apply(c.reshape(unit, s))};
}

Values lrn(Call &c) {
  const ValueId x = c.input(0);
  const Lrn op{c.integer("size", 0), c.number("alpha", 1e-4f), c.number("beta", 0.75f),
               c.number("bias", 1)};
  const Shape s = c.shape(x);
  if (s.size() == 4) return {c.add(op, {x})};
  if (s.size() < 2) c.invalid("the input has the wrong rank", "N,C,...", to_string(s));
  const int64_t rest = s[0] * s[1] == 0 ? 0 : element_count(s) / (s[0] * s[1]);
  return {c.reshape(c.add(op, {c.reshape(x, {s[0], s[1], rest, 1})}), s)};
}

// Before opset 13 everything from the axis on is one line.
template <typename Op> Values along_axis(Call &c, Op op) {
  const ValueId x = c.input(0);
  const Shape s = c.shape(x);
  if (c.opset >= 13) {
    op.axis = c.axis(c.integer("axis", -1), c.rank(x));
    return {c.add(op, {x})};
  }
  const int64_t axis = c.axis(c.integer("axis", 1), c.rank(x));
  const auto wide = std::count_if(s.begin() + axis, s.end(), [](int64_t d) { return d != 1; });
  if (wide <= 1) { // one dimension of them is a line by itself
    auto line = std::find_if(s.begin() + axis, s.end(), [](int64_t d) { return d != 1; });
    op.axis = line == s.end() ? axis : line - s.begin();
    return {c.add(op, {x})};
  }
  const int64_t lines = element_count(Shape(s.begin(), s.begin() + axis));
  op.axis = 1;
  const Shape flat{lines, element_count(Shape(s.begin() + axis, s.end()))};
  return {c.reshape(c.add(op, {c.reshape(x, flat)}), s)};
}
Values softmax(Call &c) { return along_axis(c, Softmax{}); }
Values log_softmax(Call &c) { return along_axis(c, Softmax{.log = true}); }
Values hardmax(Call &c) { return along_axis(c, Hardmax{}); }

} // namespace

std::span<const HandlerEntry> matrix_handlers() {
  static constexpr HandlerEntry table[] = {
      {"BatchNormalization", batch_normalization,
       "~consumed_inputs@-5 epsilon ~is_test@-6 ~momentum spatial@-8 training_mode@14"},
      {"Gemm", gemm, "alpha beta ~broadcast@-6 transA transB"},
      {"GroupNormalization", group_normalization, "epsilon num_groups ~stash_type@21"},
      {"Hardmax", hardmax, "axis"},
      {"InstanceNormalization", instance_normalization, "~consumed_inputs@-5 epsilon"},
      {"LRN", lrn, "alpha beta bias size"},
      {"LayerNormalization", layer_normalization, "axis epsilon ~stash_type"},
      {"LogSoftmax", log_softmax, "axis"},
      {"MatMul", matmul},
      {"Softmax", softmax, "axis"},
  };
  return table;
}

} // namespace lathe::core::onnx
