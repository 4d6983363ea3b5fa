// Activations and arithmetic of one element at a time.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <numbers>

namespace lathe::core::onnx {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

template <UnaryKind kind> Values plain(Call &c) { return {c.unary(kind, c.input(0))}; }

// One parameter, alpha, with its default.
template <UnaryKind kind, int hundredths> Values with_alpha(Call &c) {
  return {c.unary(kind, c.input(0), c.number("alpha", hundredths / 100.0f))};
}

Values selu(Call &c) {
  const bool exact = c.opset >= 6;
  const float alpha = c.number("alpha", exact ? 1.67326319217681884765625f : 1.6732f);
  const float gamma = c.number("gamma", exact ? 1.05070102214813232421875f : 1.0507f);
  return {c.binary(BinaryKind::mul, c.unary(UnaryKind::elu, c.input(0), alpha), c.scalar(gamma))};
}
// max(0, x) + min(0, alpha * (exp(x / alpha) - 1)) = alpha * elu(x / alpha)
Values celu(Call &c) {
  const float alpha = c.number("alpha", 1);
  ValueId scaled = c.binary(BinaryKind::mul, c.input(0), c.scalar(1 / alpha));
  return {c.binary(BinaryKind::mul, c.unary(UnaryKind::elu, scaled, 1), c.scalar(alpha))};
}
Values hard_sigmoid(Call &c) {
  return {c.unary(UnaryKind::hard_sigmoid, c.input(0), c.number("alpha", 0.2f),
                  c.number("beta", 0.5f))};
}
Values softsign(Call &c) {
  const ValueId x = c.input(0);
  ValueId below = c.binary(BinaryKind::add, c.unary(UnaryKind::abs, x), c.scalar(1));
  return {c.binary(BinaryKind::div, x, below)};
}
Values mish(Call &c) {
  const ValueId x = c.input(0);
  ValueId gate = c.unary(UnaryKind::tanh, c.unary(UnaryKind::softplus, x));
  return {c.binary(BinaryKind::mul, x, gate)};
}
// x * Phi(x) by erf, or by the tanh that Hendrycks and Gimpel 2016, section 2, give for it.
Values gelu(Call &c) {
  const ValueId x = c.input(0);
  const Bytes kind = c.text("approximate", "none");
  if (kind != "none" && kind != "tanh") c.invalid("bad approximation", "none or tanh", clean(kind));
  auto times = [&](ValueId a, float b) { return c.binary(BinaryKind::mul, a, c.scalar(b)); };
  auto plus = [&](ValueId a, ValueId b) { return c.binary(BinaryKind::add, a, b); };
  ValueId curve;
  if (kind == "none") {
    curve = c.unary(UnaryKind::erf, times(x, float(1 / std::numbers::sqrt2)));
  } else {
    ValueId cube = c.binary(BinaryKind::mul, c.binary(BinaryKind::mul, x, x), x);
    const auto factor = float(std::sqrt(2 / std::numbers::pi));
    curve = c.unary(UnaryKind::tanh, times(plus(x, times(cube, 0.044715f)), factor));
  }
  return {c.binary(BinaryKind::mul, times(x, 0.5f), plus(curve, c.scalar(1)))};
}
Values reciprocal(Call &c) { return {c.binary(BinaryKind::div, c.scalar(1), c.input(0))}; }

Values clip(Call &c) {
  ValueId x = c.input(0);
  if (c.opset < 11)
    return {c.unary(UnaryKind::clip, x, c.number("min", -infinity), c.number("max", infinity))};
  // Bounds that are known become part of the op.
  std::optional<float> low, high;
  if (c.has(1)) low = c.uniform(c.input(1));
  if (c.has(2)) high = c.uniform(c.input(2));
  if (low || high)
    x = c.unary(UnaryKind::clip, x, low.value_or(-infinity), high.value_or(infinity));
  if (c.has(1) && !low) x = c.binary(BinaryKind::max, x, c.input(1));
  if (c.has(2) && !high) x = c.binary(BinaryKind::min, x, c.input(2));
  if (!c.has(1) && !c.has(2)) x = c.unary(UnaryKind::identity, x);
  return {x};
}

template <BinaryKind kind> Values arithmetic(Call &c) {
  return {c.binary(kind, c.input(0), second_operand(c))};
}

Values pow(Call &c) {
  const ValueId x = c.input(0), y = second_operand(c);
  auto square = [&] { return c.binary(BinaryKind::mul, x, x); };
  if (c.type(x).dtype != DType::f32) c.unsupported("powers of integers");
  if (auto exponent = c.uniform(y); exponent && c.rank(y) <= c.rank(x)) {
    if (*exponent == 1) return {c.unary(UnaryKind::identity, x)};
    if (*exponent == 2) return {square()};
    if (*exponent == 3) return {c.binary(BinaryKind::mul, square(), x)};
    if (*exponent == 0.5f) return {c.unary(UnaryKind::sqrt, x)};
  }
  return {c.binary(BinaryKind::pow, x, c.cast(y, DType::f32))};
}

Values prelu(Call &c) {
  const ValueId x = c.input(0);
  ValueId slope = c.input(1);
  // Before opset 7 a vector of slopes belongs to the channels.
  if (c.opset < 7 && c.rank(slope) == 1 && c.shape(slope)[0] > 1 && c.rank(x) > 2)
    slope = c.along_channels(slope, c.rank(x));
  return {c.binary(BinaryKind::prelu, x, slope)};
}

template <BinaryKind kind, bool mean = false> Values of_all(Call &c) {
  const Values all = c.inputs();
  if (all.empty()) c.invalid("an op without inputs");
  ValueId result = all[0];
  for (size_t i = 1; i < all.size(); ++i) result = c.binary(kind, result, all[i]);
  if (all.size() == 1) result = c.unary(UnaryKind::identity, result);
  if (mean && all.size() > 1)
    result = c.binary(BinaryKind::mul, result, c.scalar(1 / float(all.size())));
  return {result};
}

// Floats of other widths are computed as f32. Narrow whole numbers are i32 here, and so only what
// is known while reading can become one.
ValueId cast_to(Call &c, ValueId x, int32_t to) {
  if (auto dtype = graph_type(to)) return c.cast(x, *dtype);
  int64_t least = 0, bits = 8;
  switch (to) {
  case UINT16:
    bits = 16;
    break;
  case INT8:
    least = -128;
    break;
  case INT16:
    least = -32768, bits = 16;
    break;
  case UINT8:
    break;
  default:
    c.unsupported("a cast to a type that Lathe does not compute with",
                  "float, double, float16, bfloat16, int64, int32, bool", type_name(to));
  }
  const Tensor wide = c.operand_value(c.cast(x, DType::i64));
  Tensor narrow(DType::i32, wide.shape());
  for (size_t i = 0; i < size_t(wide.size()); ++i) { // modulo 2 to the bits
    const int64_t mask = (int64_t{1} << bits) - 1, low = wide.as<int64_t>()[i] & mask;
    narrow.as_mutable<int32_t>()[i] = int32_t(least < 0 && low > mask / 2 ? low - mask - 1 : low);
  }
  c.spend(wide.size());
  return c.constant(std::move(narrow));
}
Values cast(Call &c) {
  static constexpr std::pair<Bytes, int32_t> names[] = {
      {"FLOAT", FLOAT},   {"DOUBLE", DOUBLE}, {"FLOAT16", FLOAT16}, {"INT64", INT64},
      {"INT32", INT32},   {"INT16", INT16},   {"INT8", INT8},       {"UINT8", UINT8},
      {"UINT16", UINT16}, {"BOOL", BOOL}};
  if (c.opset >= 6) {
    const int64_t to = c.integer("to", 0);
    return {cast_to(c, c.input(0), to > 0 && to < 1000 ? int32_t(to) : 0)};
  }
  const Bytes to = c.text("to", "");
  auto named = std::ranges::find(names, to, &std::pair<Bytes, int32_t>::first);
  if (named == std::end(names)) c.unsupported("a cast to a type", "", clean(to));
  return {cast_to(c, c.input(0), named->second)};
}
Values cast_like(Call &c) { return {c.cast(c.input(0), c.type(c.input(1)).dtype)}; }

// Of tensors and of sequences.
Values identity(Call &c) {
  const Item item = c.item(0);
  if (!item.sequence) return {c.unary(UnaryKind::identity, c.input(0))};
  c.give(0, item);
  return {};
}

// (x - zero point) * scale: one of each, or one for every slice along an axis, or for every block
// of it. Of constants: what is quantised at run time belongs to other kernels.
Values dequantise(Call &c) {
  ValueId x = c.input(0), scale = c.input(1);
  if (!c.is_constant(x))
    c.unsupported("a dequantised value that is only known at run time", "constants", "",
                  Obstacle::quantised);
  if (c.opset >= 23 && c.has_attribute("output_dtype") &&
      graph_type(int32_t(c.integer("output_dtype", 0))) != DType::f32 &&
      c.integer("output_dtype", 0) != 0)
    c.unsupported("this output_dtype");
  const Shape shape = c.shape(x);
  const int64_t block = c.opset >= 21 ? c.integer("block_size", 0) : 0;
  auto spread = [&](ValueId v) {
    const int64_t count = element_count(c.shape(v));
    if (c.rank(v) == 0 || (count == 1 && c.rank(v) == 1 && block == 0)) return c.reshape(v, {});
    const auto axis = size_t(c.axis(c.integer("axis", 1), int64_t(shape.size())));
    if (block > 0) { // each number of `v` holds for a block along the axis
      const Shape &blocks = c.shape(v);
      if (blocks.size() != shape.size() || (shape[axis] + block - 1) / block != blocks[axis])
        c.invalid("the scales do not fit the blocks", to_string(shape), to_string(blocks));
      c.spend(shape[axis]);
      std::vector<int64_t> indices;
      for (int64_t i = 0; i < shape[axis]; ++i) indices.push_back(i / block);
      return c.add(Gather{int64_t(axis)},
                   {v, c.constant(Tensor::of(std::move(indices), {shape[axis]}))});
    }
    if (c.rank(v) != 1 || count != shape[axis])
      c.invalid("one scale per slice is needed", fmt::format("{}", shape[axis]),
                to_string(c.shape(v)));
    Shape wide(shape.size(), 1);
    wide[axis] = count;
    return c.reshape(v, wide);
  };
  x = c.cast(x, DType::f32);
  if (c.has(2)) x = c.binary(BinaryKind::sub, x, spread(c.cast(c.input(2), DType::f32)));
  return {c.binary(BinaryKind::mul, x, spread(scale))};
}

} // namespace

ValueId second_operand(Call &c) {
  const ValueId a = c.input(0), b = c.input(1);
  if (c.opset >= 7 || !c.flag("broadcast")) return b;
  const int64_t axis =
      c.has_attribute("axis") ? c.axis(c.integer("axis", 0), c.rank(a)) : c.rank(a) - c.rank(b);
  const int64_t behind = c.rank(a) - axis - c.rank(b);
  if (behind < 0) c.invalid("operand does not fit behind the axis");
  Shape shape = c.shape(b);
  shape.insert(shape.end(), size_t(behind), 1);
  return c.reshape(b, shape);
}

std::span<const HandlerEntry> elementwise_handlers() {
  static constexpr HandlerEntry table[] = {
      {"Abs", plain<UnaryKind::abs>, "~consumed_inputs@-5"},
      {"Add", arithmetic<BinaryKind::add>, "axis@-6 broadcast@-6 ~consumed_inputs@-5"},
      {"Cast", cast, "~round_mode@24 ~saturate@19 to"},
      {"CastLike", cast_like, "~round_mode@24 ~saturate@19"},
      {"Ceil", plain<UnaryKind::ceil>, "~consumed_inputs@-5"},
      {"Celu", celu, "alpha"},
      {"Clip", clip, "~consumed_inputs@-5 max@-10 min@-10"},
      {"DequantizeLinear", dequantise, "axis@13 block_size@21 output_dtype@23"},
      {"Div", arithmetic<BinaryKind::div>, "axis@-6 broadcast@-6 ~consumed_inputs@-5"},
      {"Elu", with_alpha<UnaryKind::elu, 100>, "alpha ~consumed_inputs@-5"},
      {"Erf", plain<UnaryKind::erf>},
      {"Exp", plain<UnaryKind::exp>, "~consumed_inputs@-5"},
      {"Floor", plain<UnaryKind::floor>, "~consumed_inputs@-5"},
      {"Gelu", gelu, "approximate"},
      {"HardSigmoid", hard_sigmoid, "alpha beta ~consumed_inputs@-5"},
      {"HardSwish", plain<UnaryKind::hard_swish>},
      {"Identity", identity},
      {"LeakyRelu", with_alpha<UnaryKind::leaky_relu, 1>, "alpha ~consumed_inputs@-5"},
      {"Log", plain<UnaryKind::log>, "~consumed_inputs@-5"},
      {"Max", of_all<BinaryKind::max>, "~consumed_inputs@-5"},
      {"Mean", of_all<BinaryKind::add, true>, "~consumed_inputs@-5"},
      {"Min", of_all<BinaryKind::min>, "~consumed_inputs@-5"},
      {"Mish", mish},
      {"Mul", arithmetic<BinaryKind::mul>, "axis@-6 broadcast@-6 ~consumed_inputs@-5"},
      {"Neg", plain<UnaryKind::neg>, "~consumed_inputs@-5"},
      {"PRelu", prelu, "~consumed_inputs@-5"},
      {"Pow", pow, "axis@-6 broadcast@-6"},
      {"Reciprocal", reciprocal, "~consumed_inputs@-5"},
      {"Relu", plain<UnaryKind::relu>, "~consumed_inputs@-5"},
      {"Selu", selu, "alpha ~consumed_inputs@-5 gamma"},
      {"Sigmoid", plain<UnaryKind::sigmoid>, "~consumed_inputs@-5"},
      {"Softplus", plain<UnaryKind::softplus>},
      {"Softsign", softsign},
      {"Sqrt", plain<UnaryKind::sqrt>, "~consumed_inputs@-5"},
      {"Sub", arithmetic<BinaryKind::sub>, "axis@-6 broadcast@-6 ~consumed_inputs@-5"},
      {"Sum", of_all<BinaryKind::add>, "~consumed_inputs@-5"},
      {"Tanh", plain<UnaryKind::tanh>, "~consumed_inputs@-5"},
      {"ThresholdedRelu", with_alpha<UnaryKind::thresholded_relu, 100>, "alpha"},
  };
  return table;
}

} // namespace lathe::core::onnx
