// The shape rule of every op, and the validation of its attributes.
#include "ir/op_facts.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace lathe::core {
namespace {

using Types = std::vector<Type>;

// No kernel size, stride, dilation or padding of a sane network comes near; products stay exact.
constexpr int64_t most_window = 1 << 24;
// No dimension of a tensor that `checked_element_count` accepts is larger.
constexpr int64_t most_extent = int64_t{1} << 40;

std::unexpected<Error> rejected(std::string message, std::string expected, std::string found) {
  return fail(Error{.code = ErrorCode::invalid,
                    .message = std::move(message),
                    .expected = std::move(expected),
                    .found = std::move(found)});
}
std::string show(const Shape &shape) { return to_string(shape); }

Result<void> check_range(std::string_view what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return rejected(fmt::format("bad {}", what), fmt::format("{} to {}", low, high),
                  fmt::format("{}", value));
}

Result<int64_t> normal_axis(int64_t axis, size_t rank) {
  int64_t n = static_cast<int64_t>(rank);
  if (axis < -n || axis >= n)
    return rejected("axis out of range", fmt::format("{} to {}", -n, n - 1),
                    fmt::format("{}", axis));
  return axis < 0 ? axis + n : axis;
}

Result<Types> one(DType dtype, Shape shape) {
  LATHE_CHECK(checked_element_count(shape));
  return Types{Type{dtype, std::move(shape)}};
}

Result<void> check_rank(const Type &type, size_t rank, std::string_view what) {
  if (type.shape.size() == rank) return {};
  return rejected(fmt::format("{} has the wrong rank", what), fmt::format("{} dimensions", rank),
                  show(type.shape));
}
Result<void> check_shape(const Type &type, const Shape &shape, std::string_view what) {
  if (type.shape == shape) return {};
  return rejected(fmt::format("{} has the wrong shape", what), show(shape), show(type.shape));
}
// Formats whose ops take more element types than Lathe computes with are not wrong for that.
std::unexpected<Error> unsupported_type(std::string expected, DType found) {
  return fail(Error{.code = ErrorCode::unsupported,
                    .message = "an element type that this op is not computed with",
                    .expected = std::move(expected),
                    .found = std::string(to_string(found))});
}
Result<void> check_f32(std::span<const Type> inputs) {
  for (const Type &type : inputs)
    if (type.dtype != DType::f32) return unsupported_type("f32", type.dtype);
  return {};
}

Result<void> check_numbers(const Unary &op) {
  if (!std::isnan(op.alpha) && !std::isnan(op.beta)) return {};
  return rejected("bad parameter of an elementwise function", "numbers",
                  fmt::format("alpha {}, beta {}", op.alpha, op.beta));
}
// Operands of fused steps, from `first` on, have one shape.
Result<void> check_steps(const std::vector<FusedOp> &steps, std::span<const Type> inputs,
                         size_t first, const Shape &shape) {
  size_t next = first;
  for (const FusedOp &step : steps) {
    const auto *unary = std::get_if<Unary>(&step.op);
    LATHE_CHECK(unary ? check_numbers(*unary)
                      : check_shape(inputs[next++], shape, "a fused operand"));
  }
  return {};
}
// What a layer takes besides x and weights, for a result of this shape.
template <LayerOp L>
Result<void> check_layer(const L &op, std::span<const Type> in, const Shape &result,
                         std::string_view bias) {
  if (op.bias) LATHE_CHECK(check_shape(in[bias_input(op)], {result[1]}, bias));
  LATHE_CHECK(check_steps(pre_of(op), in, pre_input(op), {in[0].shape[1]}));
  return check_steps(op.post, in, post_input(op), result);
}

struct Rule {
  std::span<const Type> in;
  const Shape &x() const { return in[0].shape; }

  // Height and width of what a convolution or pool makes of x.
  template <typename Window> Result<Size2> window_extents(const Window &op, bool ceil_mode) const {
    LATHE_TRY(int64_t h, window_extent(x()[2], op.kernel.h, op.stride.h, op.dilation.h, op.pad.top,
                                       op.pad.bottom, ceil_mode));
    LATHE_TRY(int64_t w, window_extent(x()[3], op.kernel.w, op.stride.w, op.dilation.w, op.pad.left,
                                       op.pad.right, ceil_mode));
    return Size2{h, w};
  }

  Result<Types> operator()(const Conv &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_CHECK(check_range("number of groups", op.groups, 1, most_window));
    LATHE_CHECK(check_rank(in[0], 4, "the input of a convolution"));
    LATHE_CHECK(check_rank(in[1], 4, "the weight of a convolution"));
    LATHE_TRY(Size2 size, window_extents(op, false));
    int64_t outputs = in[1].shape[0];
    if (x()[1] % op.groups || outputs % op.groups)
      return rejected("channels do not divide into groups",
                      fmt::format("multiples of {}", op.groups),
                      fmt::format("{} input and {} output channels", x()[1], outputs));
    LATHE_CHECK(check_range("number of output channels", outputs, 1, most_extent));
    LATHE_CHECK(check_range("number of input channels", x()[1], 1, most_extent));
    LATHE_CHECK(check_shape(in[1], {outputs, x()[1] / op.groups, op.kernel.h, op.kernel.w},
                            "the weight of a convolution"));
    Shape result{x()[0], outputs, size.h, size.w};
    LATHE_CHECK(check_layer(op, in, result, "the bias of a convolution"));
    return one(DType::f32, result);
  }
  Result<Types> operator()(const Dense &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_CHECK(check_rank(in[0], 2, "the input of a dense layer"));
    LATHE_CHECK(check_rank(in[1], 2, "the weight of a dense layer"));
    int64_t outputs = in[1].shape[0];
    LATHE_CHECK(check_range("number of outputs", outputs, 1, most_extent));
    LATHE_CHECK(check_range("number of inputs", x()[1], 1, most_extent));
    LATHE_CHECK(check_shape(in[1], {outputs, x()[1]}, "the weight of a dense layer"));
    Shape result{x()[0], outputs};
    LATHE_CHECK(check_layer(op, in, result, "the bias of a dense layer"));
    return one(DType::f32, result);
  }
  Result<Types> operator()(const Pool &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_CHECK(check_rank(in[0], 4, "the input of a pool"));
    LATHE_TRY(Size2 size, window_extents(op, op.ceil_mode));
    // A window with no tap inside the picture has no maximum and no mean: it lies in the padding,
    // or its taps step over the picture.
    auto reach = [](int64_t kernel, int64_t dilation) { return (kernel - 1) * dilation; };
    if (std::max(op.pad.top, op.pad.bottom) > reach(op.kernel.h, op.dilation.h) ||
        std::max(op.pad.left, op.pad.right) > reach(op.kernel.w, op.dilation.w))
      return rejected("padding as large as the window of a pool", "less than the kernel",
                      fmt::format("kernel {}x{}, padding {} {} {} {}", op.kernel.h, op.kernel.w,
                                  op.pad.top, op.pad.left, op.pad.bottom, op.pad.right));
    if ((op.pad.top > 0 && op.dilation.h > x()[2]) || (op.pad.left > 0 && op.dilation.w > x()[3]))
      return rejected("the taps of a padded pool may all miss the picture",
                      "dilation no larger than the picture",
                      fmt::format("dilation {}x{} of {}", op.dilation.h, op.dilation.w, show(x())));
    Shape result{x()[0], x()[1], size.h, size.w};
    LATHE_CHECK(check_layer(op, in, result, "the bias of a pool"));
    return one(DType::f32, result);
  }
  Result<Types> operator()(const GlobalPool &op) const {
    LATHE_CHECK(check_f32(in));
    if (op.kind == PoolKind::sum)
      return rejected("bad kind of a global pool", "max or average", "sum");
    LATHE_CHECK(check_rank(in[0], 4, "the input of a global pool"));
    if (x()[2] < 1 || x()[3] < 1) return rejected("nothing to pool", "a picture", show(x()));
    return one(DType::f32, {x()[0], x()[1], 1, 1});
  }
  Result<Types> operator()(const Lrn &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_CHECK(check_range("LRN size", op.size, 1, most_window));
    LATHE_CHECK(check_rank(in[0], 4, "the input of LRN"));
    if (!std::isfinite(op.alpha) || !std::isfinite(op.beta) || !std::isfinite(op.k) ||
        op.alpha < 0 || op.k <= 0)
      return rejected("bad LRN parameters", "alpha >= 0, k > 0, all finite",
                      fmt::format("alpha {}, beta {}, k {}", op.alpha, op.beta, op.k));
    return one(DType::f32, x());
  }
  Result<Types> operator()(const BatchNorm &op) const {
    LATHE_CHECK(check_f32(in));
    if (!(op.epsilon >= 0) || !std::isfinite(op.epsilon))
      return rejected("bad epsilon of batch norm", "a finite number >= 0",
                      fmt::format("{}", op.epsilon));
    if (x().size() < 2)
      return rejected("the input of batch norm has no channels", "N,C,...", show(x()));
    for (size_t i = 1; i < 5; ++i)
      LATHE_CHECK(check_shape(in[i], {x()[1]}, "a parameter of batch norm"));
    return one(DType::f32, x());
  }
  Result<Types> operator()(const Unary &op) const {
    const bool numbers = op.kind == UnaryKind::neg || op.kind == UnaryKind::abs;
    if (op.kind != UnaryKind::identity && !(numbers && in[0].dtype != DType::boolean))
      LATHE_CHECK(check_f32(in));
    LATHE_CHECK(check_numbers(op));
    return one(in[0].dtype, x());
  }
  Result<Types> operator()(const Binary &op) const {
    if (op.kind == BinaryKind::pow) LATHE_CHECK(check_f32(in));
    if (in[0].dtype != in[1].dtype)
      return rejected("operands of different element types", "two of f32, i64 or i32",
                      fmt::format("{} and {}", to_string(in[0].dtype), to_string(in[1].dtype)));
    if (in[0].dtype == DType::boolean) return unsupported_type("f32, i64 or i32", in[0].dtype);
    LATHE_TRY(Shape shape, broadcast(in[0].shape, in[1].shape));
    return one(in[0].dtype, shape);
  }
  Result<Types> operator()(const Softmax &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_CHECK(normal_axis(op.axis, x().size()));
    return one(DType::f32, x());
  }
  Result<Types> operator()(const Concat &op) const {
    LATHE_TRY(int64_t axis, normal_axis(op.axis, x().size()));
    auto a = static_cast<size_t>(axis);
    Shape result = x();
    for (const Type &type : in.subspan(1)) {
      bool same = type.shape.size() == result.size() && type.dtype == in[0].dtype;
      for (size_t i = 0; same && i < result.size(); ++i)
        same = i == a || type.shape[i] == result[i];
      if (!same)
        return rejected("parts of a concat differ",
                        fmt::format("{} but for axis {}", show(x()), axis), show(type.shape));
      result[a] += type.shape[a];
      LATHE_CHECK(checked_element_count(result));
    }
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const Slice &op) const {
    size_t n = op.axes.size();
    if (op.begin.size() != n || op.end.size() != n || op.step.size() != n)
      return rejected("lists of a slice differ in length", fmt::format("{} entries each", n),
                      fmt::format("{} begins, {} ends, {} steps", op.begin.size(), op.end.size(),
                                  op.step.size()));
    Shape result = x();
    std::vector<bool> seen(result.size());
    for (size_t i = 0; i < n; ++i) {
      LATHE_TRY(int64_t axis, normal_axis(op.axes[i], result.size()));
      auto a = static_cast<size_t>(axis);
      if (seen[a])
        return rejected("an axis is sliced twice", "distinct axes", fmt::format("{}", axis));
      seen[a] = true;
      if (op.step[i] == 0) return rejected("bad slice step", "a number other than 0", "0");
      LATHE_CHECK(check_range("slice step", op.step[i], -most_extent, most_extent));
      result[a] = slice_range(x()[a], op.begin[i], op.end[i], op.step[i]).count;
    }
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const Split &op) const {
    LATHE_TRY(int64_t axis, normal_axis(op.axis, x().size()));
    Types results;
    auto a = static_cast<size_t>(axis);
    int64_t rest = x()[a];
    for (int64_t size : op.sizes) {
      if (size < 0 || size > rest) break;
      rest -= size;
      Shape part = x();
      part[a] = size;
      results.push_back({in[0].dtype, part});
    }
    if (rest != 0 || op.sizes.empty() || results.size() != op.sizes.size())
      return rejected("sizes of a split do not add up", fmt::format("{}", x()[a]),
                      fmt::format("[{}]", fmt::join(op.sizes, ", ")));
    return results;
  }
  Result<Types> operator()(const Pad &op) const {
    if (op.before.size() != x().size() || op.after.size() != x().size())
      return rejected("padding needs an entry per dimension",
                      fmt::format("{} before and after", x().size()),
                      fmt::format("{} and {}", op.before.size(), op.after.size()));
    Shape result = x();
    for (size_t i = 0; i < result.size(); ++i) {
      LATHE_CHECK(check_range("padding", op.before[i], 0, most_window));
      LATHE_CHECK(check_range("padding", op.after[i], 0, most_window));
      result[i] += op.before[i] + op.after[i];
    }
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const Reshape &op) const {
    Shape result;
    int64_t known = 1;
    std::optional<size_t> open;
    for (size_t i = 0; i < op.shape.size(); ++i) {
      int64_t d = op.shape[i];
      if (d == 0) d = i < x().size() ? x()[i] : -2; // there is nothing to copy: an error
      if (d == -1 && !open) {
        open = i;
        result.push_back(1);
        continue;
      }
      if (d < 0 || (d > 0 && known > most_extent / d))
        return rejected("bad target of a reshape", "sizes, 0 for a copy, at most one -1",
                        fmt::format("[{}]", fmt::join(op.shape, ", ")));
      known *= d;
      result.push_back(d);
    }
    int64_t count = element_count(x());
    if (open && known > 0) result[*open] = count / known;
    if (element_count(result) != count)
      return rejected("reshape changes the number of elements",
                      fmt::format("{} elements of {}", count, show(x())),
                      fmt::format("[{}]", fmt::join(op.shape, ", ")));
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const Flatten &op) const {
    int64_t rank = static_cast<int64_t>(x().size());
    LATHE_CHECK(check_range("flatten axis", op.axis, -rank, rank));
    auto split = x().begin() + (op.axis < 0 ? op.axis + rank : op.axis);
    return one(in[0].dtype,
               {element_count(Shape(x().begin(), split)), element_count(Shape(split, x().end()))});
  }
  Result<Types> operator()(const Transpose &op) const {
    std::vector<int64_t> sorted = op.perm;
    std::ranges::sort(sorted);
    bool permutation = sorted.size() == x().size();
    for (size_t i = 0; permutation && i < sorted.size(); ++i)
      permutation = sorted[i] == static_cast<int64_t>(i);
    if (!permutation)
      return rejected("not a permutation", fmt::format("of 0 to {}", int64_t(x().size()) - 1),
                      fmt::format("[{}]", fmt::join(op.perm, ", ")));
    Shape result;
    for (int64_t p : op.perm) result.push_back(x()[static_cast<size_t>(p)]);
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const Expand &op) const {
    for (int64_t d : op.shape) LATHE_CHECK(check_range("dimension", d, 0, most_extent));
    LATHE_TRY(Shape shape, broadcast(x(), op.shape));
    return one(in[0].dtype, shape);
  }
  Result<Types> operator()(const Gather &op) const {
    if (in[1].dtype != DType::i64 && in[1].dtype != DType::i32)
      return rejected("wrong element type of indices", "i64 or i32",
                      std::string(to_string(in[1].dtype)));
    LATHE_TRY(int64_t axis, normal_axis(op.axis, x().size()));
    if (x()[static_cast<size_t>(axis)] == 0 && element_count(in[1].shape) > 0)
      return rejected("nothing to gather from", "at least one element", show(x()));
    Shape result(x().begin(), x().begin() + axis);
    result.insert(result.end(), in[1].shape.begin(), in[1].shape.end());
    result.insert(result.end(), x().begin() + axis + 1, x().end());
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const Reduce &op) const {
    if (in[0].dtype == DType::boolean) return unsupported_type("f32, i64 or i32", in[0].dtype);
    std::vector<bool> reduced(x().size());
    for (int64_t a : op.axes) {
      LATHE_TRY(int64_t axis, normal_axis(a, x().size()));
      if (reduced[static_cast<size_t>(axis)])
        return rejected("an axis is reduced twice", "distinct axes", fmt::format("{}", a));
      reduced[static_cast<size_t>(axis)] = true;
      if (op.kind == ReduceKind::mean && x()[static_cast<size_t>(axis)] < 1)
        return rejected("mean over nothing", "at least one element", show(x()));
    }
    Shape result;
    for (size_t i = 0; i < x().size(); ++i) {
      if (!reduced[i])
        result.push_back(x()[i]);
      else if (op.keep_dims)
        result.push_back(1);
    }
    return one(in[0].dtype, result);
  }
  Result<Types> operator()(const ArgReduce &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_TRY(int64_t axis, normal_axis(op.axis, x().size()));
    if (x()[static_cast<size_t>(axis)] < 1)
      return rejected("extreme of nothing", "at least one element", show(x()));
    Shape result = x();
    if (op.keep_dims)
      result[static_cast<size_t>(axis)] = 1;
    else
      result.erase(result.begin() + axis);
    return one(DType::i64, result);
  }
  Result<Types> operator()(const Hardmax &op) const {
    LATHE_CHECK(check_f32(in));
    LATHE_CHECK(normal_axis(op.axis, x().size()));
    return one(DType::f32, x());
  }
  Result<Types> operator()(const Cast &op) const { return one(op.to, x()); }
  Result<Types> operator()(const Dropout &op) const {
    if (!(op.rate >= 0 && op.rate <= 1))
      return rejected("bad dropout rate", "0 to 1", fmt::format("{}", op.rate));
    return one(in[0].dtype, x());
  }
};

} // namespace

Result<std::vector<Type>> infer_types(const Op &op, std::span<const Type> inputs) {
  auto [least, most] = arity(op);
  if (inputs.size() < least || inputs.size() > most)
    return rejected("wrong number of inputs",
                    fmt::format("{}{}", least, most > least ? " or more" : ""),
                    fmt::format("{}", inputs.size()));
  auto *unary = std::get_if<Unary>(&op);
  const bool any_type =
      std::holds_alternative<Cast>(op) || (unary && unary->kind == UnaryKind::identity);
  for (const Type &type : inputs) {
    LATHE_CHECK(checked_element_count(type.shape));
    if (!any_type && type.dtype != DType::f32 && is_float(type.dtype))
      return unsupported_type("f32, which others are cast to before", type.dtype);
  }
  return std::visit(Rule{inputs}, op);
}

SliceRange slice_range(int64_t extent, int64_t begin, int64_t end, int64_t step) {
  auto from_front = [&](int64_t v) { return v < 0 ? v + extent : v; };
  // A walk backwards ends before the first element at the earliest.
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
  const int64_t first = std::clamp(from_front(begin), std::min(low, high), high);
  const int64_t last = std::clamp(from_front(end), std::min(low, high), high);
  const int64_t room = step > 0 ? last - first : first - last, stride = std::abs(step);
  const int64_t count = std::max<int64_t>(0, (room + stride - 1) / stride);
  return {count > 0 ? first : 0, count, step};
}

Result<Shape> broadcast(const Shape &a, const Shape &b) {
  Shape result(std::max(a.size(), b.size()));
  for (size_t i = 0; i < result.size(); ++i) {
    int64_t da = i < a.size() ? a[a.size() - 1 - i] : 1;
    int64_t db = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (da != db && da != 1 && db != 1)
      return rejected("shapes do not broadcast", show(a), show(b));
    result[result.size() - 1 - i] = da == 1 ? db : da;
  }
  return result;
}

Result<int64_t> window_extent(int64_t input, int64_t kernel, int64_t stride, int64_t dilation,
                              int64_t pad_before, int64_t pad_after, bool ceil_mode) {
  LATHE_CHECK(check_range("kernel size", kernel, 1, most_window));
  LATHE_CHECK(check_range("stride", stride, 1, most_window));
  LATHE_CHECK(check_range("dilation", dilation, 1, most_window));
  for (int64_t pad : {pad_before, pad_after})
    LATHE_CHECK(check_range("padding", pad, 0, most_window));
  LATHE_CHECK(check_range("number of rows or columns", input, 1, most_extent));
  int64_t overhang = ceil_mode ? stride - 1 : 0; // of the last window over the padding's end
  int64_t least = (kernel - 1) * dilation + 1 - overhang;
  int64_t room = input + pad_before + pad_after - least;
  if (room < 0)
    return rejected("the window does not fit", fmt::format("at least {} rows or columns", least),
                    fmt::format("{} with padding {} and {}", input, pad_before, pad_after));
  int64_t extent = room / stride + 1;
  // PyTorch and Caffe: the last window starts inside the picture or its leading padding.
  if (ceil_mode && (extent - 1) * stride >= input + pad_before) --extent;
  return extent;
}

} // namespace lathe::core
