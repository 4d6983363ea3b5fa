// Ops of one element at a time that the graph has none for, because nothing of them is left at run
// time: they are computed while reading, wherever their operands are known.
#include "frontend/onnx/known_elements.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <utility>

namespace lathe::core::onnx {

constexpr int64_t most_elements = 1 << 22; // that are computed at once

KnownTogether known_together(Call &c, const Values &inputs) {
  KnownTogether k;
  for (ValueId id : inputs) {
    auto shape = broadcast(k.shape, c.shape(id));
    if (!shape) c.invalid("shapes do not broadcast", to_string(k.shape), to_string(c.shape(id)));
    k.shape = *shape;
  }
  auto count = checked_element_count(k.shape);
  if (!count || *count > most_elements)
    c.unsupported("so many elements while reading", fmt::format("at most {}", most_elements),
                  to_string(k.shape));
  for (ValueId id : inputs) {
    if (!c.is_constant(id)) c.operand_value(id); // throws
    k.values.push_back(c.operand_value(c.shape(id) == k.shape ? id : c.add(Expand{k.shape}, {id})));
  }
  c.spend(*count);
  return k;
}

std::vector<int64_t> integers_of(Call &c, const Tensor &tensor) {
  if (tensor.dtype() == DType::f32) c.invalid("floats where whole numbers are needed");
  return with_elements(
      tensor, [](auto elements) { return std::vector<int64_t>(elements.begin(), elements.end()); });
}

namespace {

// Throws where operands have different types.
void check_same_type(Call &c, const Tensor &a, const Tensor &b) {
  if (a.dtype() != b.dtype())
    c.invalid("operands of different types", std::string(to_string(a.dtype())),
              std::string(to_string(b.dtype())));
}

// f(a) of every element, as a tensor of this type.
template <typename To, typename F>
ValueId map_one(Call &c, DType dtype, const KnownTogether &k, F f) {
  Tensor result(dtype, k.shape);
  std::span<To> to = result.as_mutable<To>();
  with_elements(k.values[0], [&](auto a) {
    for (size_t i = 0; i < to.size(); ++i) to[i] = To(f(a[i]));
  });
  return c.constant(std::move(result));
}
// f(a, b) of every two elements; both are of one type.
template <typename To, typename F>
ValueId map_two(Call &c, DType dtype, const KnownTogether &k, F f) {
  check_same_type(c, k.values[0], k.values[1]);
  Tensor result(dtype, k.shape);
  std::span<To> to = result.as_mutable<To>();
  with_elements(k.values[0], [&](auto a) {
    const auto b = k.values[1].as<typename decltype(a)::value_type>();
    for (size_t i = 0; i < to.size(); ++i) to[i] = To(f(a[i], b[i]));
  });
  return c.constant(std::move(result));
}
// f(a, b) of the same type as both.
template <typename F> ValueId combine(Call &c, const KnownTogether &k, F f) {
  const DType dtype = k.values[0].dtype();
  return with_elements(k.values[0],
                       [&]<typename T>(std::span<const T>) { return map_two<T>(c, dtype, k, f); });
}

template <typename Compare> Values compare(Call &c) {
  const KnownTogether k = known_together(c, {c.input(0), second_operand(c)});
  return {map_two<uint8_t>(c, DType::boolean, k, Compare{})};
}

struct Both {
  bool operator()(auto a, auto b) const { return a != 0 && b != 0; }
};
struct Either {
  bool operator()(auto a, auto b) const { return a != 0 || b != 0; }
};
struct OneOf {
  bool operator()(auto a, auto b) const { return (a != 0) != (b != 0); }
};

Values negate(Call &c) {
  return {map_one<uint8_t>(c, DType::boolean, known_together(c, {c.input(0)}),
                           [](auto a) { return a == 0; })};
}

Values where(Call &c) {
  const ValueId condition = c.input(0);
  const DType dtype = c.type(c.input(1)).dtype;
  if (c.type(condition).dtype != DType::boolean)
    c.invalid("the condition has the wrong element type", "bool",
              std::string(to_string(c.type(condition).dtype)));
  if (c.type(c.input(2)).dtype != dtype)
    c.invalid("operands of different types", std::string(to_string(dtype)),
              std::string(to_string(c.type(c.input(2)).dtype)));
  Shape shape;
  for (ValueId id : {condition, c.input(1), c.input(2)}) {
    auto common = broadcast(shape, c.shape(id));
    if (!common) c.invalid("shapes do not broadcast", to_string(shape), to_string(c.shape(id)));
    shape = *common;
  }
  auto widened = [&](ValueId x) { return c.shape(x) == shape ? x : c.add(Expand{shape}, {x}); };
  const Tensor known = known_together(c, {condition}).values[0];
  const auto yes = std::ranges::count_if(known.as<uint8_t>(), [](uint8_t e) { return e != 0; });
  if (yes == known.size()) return {widened(c.input(1))};
  if (yes == 0) return {widened(c.input(2))};
  return {choose(c, known_together(c, {widened(condition)}).values[0], widened(c.input(1)),
                 widened(c.input(2)))};
}

// From the first number up to the limit, without it: first + i * step, floats computed in double.
Values range(Call &c) {
  const KnownTogether k = known_together(c, {c.input(0), c.input(1), c.input(2)});
  if (k.count() != 1) c.invalid("a range needs three scalars");
  check_same_type(c, k.values[0], k.values[1]);
  check_same_type(c, k.values[0], k.values[2]);
  return {with_elements(k.values[0], [&]<typename T>(std::span<const T> first) {
    using Wide = std::conditional_t<std::is_floating_point_v<T>, double, __int128>;
    const Wide begin = first[0], end = k.values[1].as<T>()[0], step = k.values[2].as<T>()[0];
    if (step == 0 || step != step || begin != begin || end != end)
      c.invalid("a range without a step");
    Wide count = (end - begin) / step;
    if constexpr (std::is_floating_point_v<T>)
      count = std::ceil(count);
    else if (count * step != end - begin)
      count += (step > 0) == (end > begin);
    if (count > most_elements)
      c.unsupported("so long a range", fmt::format("at most {} elements", most_elements));
    const int64_t n = count > 0 ? int64_t(count) : 0;
    c.spend(n);
    Tensor result(k.values[0].dtype(), {n});
    for (int64_t i = 0; i < n; ++i) result.as_mutable<T>()[size_t(i)] = T(begin + Wide(i) * step);
    return c.constant(std::move(result));
  })};
}

// With the sign of the divisor, as Python has it, or of the dividend, as C's fmod.
Values mod(Call &c) {
  const bool as_c = c.flag("fmod");
  const KnownTogether k = known_together(c, {c.input(0), c.input(1)});
  if (k.values[0].dtype() == DType::f32 && !as_c && c.opset < 28)
    c.invalid("fmod = 0 for floats", "fmod = 1, or opset 28");
  return {combine(c, k, [&]<typename T>(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      const T rest = std::fmod(a, b);
      if (as_c || std::isnan(rest)) return rest;
      if (rest == 0) return std::copysign(rest, b);
      return (rest < 0) != (b < 0) ? rest + b : rest;
    } else {
      if (b == 0) c.invalid("a division by zero");
      const auto rest = T(std::cmp_equal(b, -1) ? 0 : a % b);
      return T(!as_c && rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
  })};
}

// Of integers and bools.
template <typename F> Values bitwise(Call &c) {
  const KnownTogether k = known_together(c, {c.input(0), c.input(1)});
  return {combine(c, k, [&]<typename T>(T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
      c.invalid("floats where whole numbers are needed");
    else
      return T(F{}(a, b));
    return T{};
  })};
}
Values bitwise_not(Call &c) {
  const KnownTogether k = known_together(c, {c.input(0)});
  return {with_elements(k.values[0], [&]<typename T>(std::span<const T>) {
    return map_one<T>(c, k.values[0].dtype(), k, [&](auto a) {
      if constexpr (std::is_floating_point_v<decltype(a)>)
        c.invalid("floats where whole numbers are needed");
      else
        return decltype(a)(~a);
      return decltype(a){};
    });
  })};
}

Values bit_shift(Call &c) {
  const Bytes direction = c.text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT")
    c.invalid("bad direction", "LEFT or RIGHT", clean(direction));
  const KnownTogether k = known_together(c, {c.input(0), c.input(1)});
  return {combine(c, k, [&]<typename T>(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      c.invalid("floats where whole numbers are needed");
      return T{};
    } else {
      const bool beyond = std::cmp_less(b, 0) || std::cmp_greater_equal(b, 8 * sizeof(T));
      if (direction == "RIGHT") return T(beyond ? (a < 0 ? -1 : 0) : a >> b);
      return T(beyond ? 0 : std::make_unsigned_t<T>(a) << b);
    }
  })};
}

// --- Functions of one number, computed in double

template <double (*function)(double)> Values function_of_one(Call &c) {
  const KnownTogether k = known_together(c, {c.input(0)});
  if (k.values[0].dtype() != DType::f32) c.unsupported("this op on whole numbers");
  return {map_one<float>(c, DType::f32, k, [](auto a) { return function(double(a)); })};
}
// Halves to the even one of two.
double round_to_even(double x) { return std::nearbyint(x); }

Values sign(Call &c) {
  const KnownTogether k = known_together(c, {c.input(0)});
  return {with_elements(k.values[0], [&]<typename T>(std::span<const T>) {
    return map_one<T>(c, k.values[0].dtype(), k, [](auto a) {
      return a != a ? a : decltype(a)((a > 0) - (a < 0)); // NaN stays
    });
  })};
}
Values is_nan(Call &c) {
  return {map_one<uint8_t>(c, DType::boolean, known_together(c, {c.input(0)}),
                           [](auto a) { return a != a; })};
}
Values is_inf(Call &c) {
  const bool below = c.flag("detect_negative", true), above = c.flag("detect_positive", true);
  return {map_one<uint8_t>(c, DType::boolean, known_together(c, {c.input(0)}), [&](auto a) {
    const auto x = double(a);
    return std::isinf(x) && (x < 0 ? below : above);
  })};
}

} // namespace

std::span<const HandlerEntry> known_handlers() {
  static constexpr HandlerEntry table[] = {
      {"Acos", function_of_one<std::acos>},
      {"Acosh", function_of_one<std::acosh>},
      {"And", compare<Both>, "axis@-6 broadcast@-6"},
      {"Asin", function_of_one<std::asin>},
      {"Asinh", function_of_one<std::asinh>},
      {"Atan", function_of_one<std::atan>},
      {"Atanh", function_of_one<std::atanh>},
      {"BitShift", bit_shift, "direction"},
      {"BitwiseAnd", bitwise<std::bit_and<>>},
      {"BitwiseNot", bitwise_not},
      {"BitwiseOr", bitwise<std::bit_or<>>},
      {"BitwiseXor", bitwise<std::bit_xor<>>},
      {"Cos", function_of_one<std::cos>},
      {"Cosh", function_of_one<std::cosh>},
      {"Equal", compare<std::equal_to<>>, "axis@-6 broadcast@-6"},
      {"Greater", compare<std::greater<>>, "axis@-6 broadcast@-6"},
      {"GreaterOrEqual", compare<std::greater_equal<>>},
      {"IsInf", is_inf, "detect_negative detect_positive"},
      {"IsNaN", is_nan},
      {"Less", compare<std::less<>>, "axis@-6 broadcast@-6"},
      {"LessOrEqual", compare<std::less_equal<>>},
      {"Mod", mod, "fmod"},
      {"Not", negate},
      {"Or", compare<Either>, "axis@-6 broadcast@-6"},
      {"Range", range, "~stash_type@27"},
      {"Round", function_of_one<round_to_even>},
      {"Sign", sign},
      {"Sin", function_of_one<std::sin>},
      {"Sinh", function_of_one<std::sinh>},
      {"Tan", function_of_one<std::tan>},
      {"Where", where},
      {"Xor", compare<OneOf>, "axis@-6 broadcast@-6"},
  };
  return table;
}

} // namespace lathe::core::onnx
