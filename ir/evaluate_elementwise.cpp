// The evaluator's ops of one element at a time. Floats are computed in float64 and rounded once.
#include "ir/evaluate_ops.h"
#include "ir/strided.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace lathe::core {

double apply(const Unary &op, double x) {
  auto clip = [](double v, double low, double high) { return std::min(std::max(v, low), high); };
  switch (op.kind) {
  case UnaryKind::identity:
    return x;
  case UnaryKind::relu:
    return x < 0 ? 0 : x;
  case UnaryKind::leaky_relu:
    return x < 0 ? op.alpha * x : x;
  case UnaryKind::clip:
    return clip(x, op.alpha, op.beta);
  case UnaryKind::sigmoid:
    return 1 / (1 + std::exp(-x));
  case UnaryKind::tanh:
    return std::tanh(x);
  case UnaryKind::hard_sigmoid:
    return clip(op.alpha * x + op.beta, 0, 1);
  case UnaryKind::hard_swish:
    return x * clip(x / 6 + 0.5, 0, 1);
  case UnaryKind::elu:
    return x < 0 ? op.alpha * std::expm1(x) : x;
  case UnaryKind::exp:
    return std::exp(x);
  case UnaryKind::log:
    return std::log(x);
  case UnaryKind::sqrt:
    return std::sqrt(x);
  case UnaryKind::neg:
    return -x;
  case UnaryKind::abs:
    return std::abs(x);
  case UnaryKind::floor:
    return std::floor(x);
  case UnaryKind::ceil:
    return std::ceil(x);
  case UnaryKind::erf:
    return std::erf(x);
  case UnaryKind::softplus:
    return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
  case UnaryKind::thresholded_relu:
    return x <= op.alpha ? 0 : x;
  }
  return x;
}

namespace {

// Calls body with the function of two values that `kind` names, so that loops choose it once.
// Integers wrap as hardware does; a division by zero gives zero.
template <typename T, typename Body> auto with_function(BinaryKind kind, const Body &body) {
  if constexpr (std::is_floating_point_v<T>) {
    switch (kind) {
    case BinaryKind::add:
      return body([](T a, T b) { return a + b; });
    case BinaryKind::sub:
      return body([](T a, T b) { return a - b; });
    case BinaryKind::mul:
      return body([](T a, T b) { return a * b; });
    case BinaryKind::div:
      return body([](T a, T b) { return a / b; });
    case BinaryKind::min:
      return body([](T a, T b) { return smaller(a, b); });
    case BinaryKind::max:
      return body([](T a, T b) { return larger(a, b); });
    case BinaryKind::pow:
      return body([](T a, T b) { return std::pow(a, b); });
    case BinaryKind::prelu:
      break;
    }
    return body([](T a, T b) { return a < 0 ? b * a : a; });
  } else {
    using U = std::make_unsigned_t<T>;
    switch (kind) {
    case BinaryKind::add:
      return body([](T a, T b) { return static_cast<T>(static_cast<U>(a) + static_cast<U>(b)); });
    case BinaryKind::sub:
      return body([](T a, T b) { return static_cast<T>(static_cast<U>(a) - static_cast<U>(b)); });
    case BinaryKind::mul:
      return body([](T a, T b) { return static_cast<T>(static_cast<U>(a) * static_cast<U>(b)); });
    case BinaryKind::div:
      return body([](T a, T b) {
        if (b == -1) return static_cast<T>(U{0} - static_cast<U>(a)); // the least a has no negative
        return b == 0 ? T{0} : static_cast<T>(a / b);
      });
    case BinaryKind::min:
      return body([](T a, T b) { return smaller(a, b); });
    case BinaryKind::max:
      return body([](T a, T b) { return larger(a, b); });
    case BinaryKind::pow: // inference accepts only floats
    case BinaryKind::prelu:
      break;
    }
    return body(
        [](T a, T b) { return a < 0 ? static_cast<T>(static_cast<U>(a) * static_cast<U>(b)) : a; });
  }
}

// Elements of type T, computed in type Wide.
template <typename T, typename Wide> Tensor combine(BinaryKind kind, const Operands &a) {
  Tensor result = a.result();
  const Shape &shape = result.shape();
  const T *left = a.in[0].as<T>().data(), *right = a.in[1].as<T>().data();
  T *out = result.as_mutable<T>().data();
  with_function<Wide>(kind, [&](const auto &function) {
    auto row = [&](const auto &offset, int64_t length, const auto &step) {
      const T *l = left + offset[0], *r = right + offset[1];
      for (int64_t i = 0; i < length; ++i)
        out[i] = static_cast<T>(function(Wide{l[i * step[0]]}, Wide{r[i * step[1]]}));
      out += length;
    };
    for_each_row<2>(
        shape,
        {broadcast_strides(a.in[0].shape(), shape), broadcast_strides(a.in[1].shape(), shape)},
        row);
  });
  return result;
}

} // namespace

double apply(BinaryKind kind, double a, double b) {
  return with_function<double>(kind, [&](const auto &function) { return function(a, b); });
}

Tensors compute(const Unary &op, const Operands &a) {
  if (op.kind == UnaryKind::identity) return {a.x()};
  Tensor y = a.result();
  auto integers = [&]<typename T>(T) { // wrap, as hardware does
    std::ranges::transform(a.x().as<T>(), y.as_mutable<T>().begin(), [&](T v) {
      const bool turn = op.kind == UnaryKind::neg || v < 0;
      return turn ? static_cast<T>(-static_cast<std::make_unsigned_t<T>>(v)) : v;
    });
  };
  if (y.dtype() == DType::i64) return integers(int64_t{}), Tensors{y};
  if (y.dtype() == DType::i32) return integers(int32_t{}), Tensors{y};
  std::ranges::transform(a.x().f32(), y.f32_mutable().begin(),
                         [&](float v) { return static_cast<float>(apply(op, v)); });
  return {y};
}

Tensors compute(const Binary &op, const Operands &a) {
  switch (a.types[0].dtype) {
  case DType::i64:
    return {combine<int64_t, int64_t>(op.kind, a)};
  case DType::i32:
    return {combine<int32_t, int32_t>(op.kind, a)};
  default:
    return {combine<float, double>(op.kind, a)};
  }
}

Tensors compute(const BatchNorm &op, const Operands &a) {
  Tensor y = a.result();
  const Axis channel(a.shape(), 1);
  const float *from = a.x().f32().data();
  float *to = y.f32_mutable().data();
  for (int64_t n = 0; n < channel.before; ++n)
    for (int64_t c = 0; c < channel.extent; ++c) {
      auto parameter = [&](size_t i) { return double{a.in[i].f32()[static_cast<size_t>(c)]}; };
      const double scale = parameter(1), shift = parameter(2), mean = parameter(3);
      const double factor = scale / std::sqrt(parameter(4) + double{op.epsilon});
      for (int64_t i = 0; i < channel.behind; ++i)
        *to++ = static_cast<float>((*from++ - mean) * factor + shift);
    }
  return {y};
}

Tensors compute(const Dropout &, const Operands &a) { return {a.x()}; }

namespace {

template <typename From, typename To> void convert(const Tensor &x, Tensor &y) {
  std::ranges::transform(x.as<From>(), y.as_mutable<To>().begin(), [](From v) -> To {
    if constexpr (std::is_same_v<To, uint8_t>) // a bool
      return v != 0;
    else if constexpr (std::is_same_v<From, float> && std::is_integral_v<To>)
      return saturate<To>(v);
    else
      return static_cast<To>(v);
  });
}

// Calls body with a value of the type that stores `dtype`.
template <typename Body> void with_type(DType dtype, const Body &body) {
  switch (dtype) {
  case DType::f32:
    return body(float{});
  case DType::i64:
    return body(int64_t{});
  case DType::i32:
    return body(int32_t{});
  case DType::boolean:
    return body(uint8_t{});
  default: // other floats are converted before
    return;
  }
}

} // namespace

Tensors compute(const Cast &op, const Operands &a) {
  if (op.to == a.x().dtype()) return {a.x()};
  if (is_float(op.to)) return {to_floats(a.x(), op.to)};
  const Tensor x = is_float(a.x().dtype()) ? to_f32(a.x()) : a.x();
  Tensor y = a.result();
  with_type(x.dtype(), [&]<typename From>(From) {
    with_type(op.to, [&]<typename To>(To) { convert<From, To>(x, y); });
  });
  return {y};
}

} // namespace lathe::core
