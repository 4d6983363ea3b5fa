// Arithmetic of shapes that the graph has no ops for, because nothing of it is left at run time:
// comparisons, choices and ranges of whole numbers that are known while reading.
#include "frontend/onnx/import.h"

#include <algorithm>
#include <functional>

namespace lathe::core::onnx {
namespace {

// Inputs broadcast against each other, as int64.
struct Known {
  Shape shape;
  std::vector<Tensor> values;
  int64_t at(size_t input, size_t i) const { return values[input].as<int64_t>()[i]; }
};
Known known_together(Call &c, const Values &inputs) {
  Known k;
  for (ValueId id : inputs) {
    if (c.type(id).dtype == DType::f32)
      c.unsupported("this op on floats", "whole numbers that are known before the run");
    auto shape = broadcast(k.shape, c.shape(id));
    if (!shape) c.invalid("shapes do not broadcast", to_string(k.shape), to_string(c.shape(id)));
    k.shape = *shape;
  }
  if (element_count(k.shape) > (1 << 20)) c.unsupported("so many numbers in a shape's arithmetic");
  for (ValueId id : inputs) {
    c.known_value(id);
    k.values.push_back(c.known_value(c.add(Expand{k.shape}, {c.cast(id, DType::i64)})));
  }
  return k;
}

Values as(Call &c, DType dtype, std::vector<int64_t> values, Shape shape) {
  return {c.cast(c.constant(Tensor::of(std::move(values), std::move(shape))), dtype)};
}

template <typename Compare> Values compare(Call &c) {
  const Known k = known_together(c, {c.input(0), second_operand(c)});
  std::vector<int64_t> results;
  for (size_t i = 0; i < size_t(element_count(k.shape)); ++i)
    results.push_back(Compare{}(k.at(0, i), k.at(1, i)));
  return as(c, DType::boolean, std::move(results), k.shape);
}

Values negate(Call &c) {
  const Known k = known_together(c, {c.input(0)});
  std::vector<int64_t> results;
  for (size_t i = 0; i < size_t(element_count(k.shape)); ++i) results.push_back(!k.at(0, i));
  return as(c, DType::boolean, std::move(results), k.shape);
}

Values where(Call &c) {
  const DType dtype = c.type(c.input(1)).dtype;
  const Known k = known_together(c, {c.input(0), c.input(1), c.input(2)});
  std::vector<int64_t> results;
  for (size_t i = 0; i < size_t(element_count(k.shape)); ++i)
    results.push_back(k.at(0, i) ? k.at(1, i) : k.at(2, i));
  return as(c, dtype, std::move(results), k.shape);
}

Values range(Call &c) {
  const DType dtype = c.type(c.input(0)).dtype;
  const Known k = known_together(c, {c.input(0), c.input(1), c.input(2)});
  if (element_count(k.shape) != 1) c.invalid("a range needs three scalars");
  const int64_t first = k.at(0, 0), last = k.at(1, 0), step = k.at(2, 0);
  if (step == 0) c.invalid("a range without a step");
  std::vector<int64_t> results;
  for (int64_t v = first; step > 0 ? v < last : v > last;) {
    results.push_back(v);
    if (results.size() > (1 << 20)) c.unsupported("so long a range");
    if (__builtin_add_overflow(v, step, &v)) break;
  }
  const auto n = int64_t(results.size());
  return as(c, dtype, std::move(results), {n});
}

// With the sign of the divisor, as Python has it, or of the dividend, as C's fmod.
Values mod(Call &c) {
  const DType dtype = c.type(c.input(0)).dtype;
  const bool as_c = c.flag("fmod");
  const Known k = known_together(c, {c.input(0), c.input(1)});
  std::vector<int64_t> results;
  for (size_t i = 0; i < size_t(element_count(k.shape)); ++i) {
    const int64_t a = k.at(0, i), b = k.at(1, i);
    if (b == 0) c.invalid("a division by zero");
    const int64_t rest = b == -1 ? 0 : a % b;
    results.push_back(!as_c && rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
  }
  return as(c, dtype, std::move(results), k.shape);
}

struct Both {
  bool operator()(int64_t a, int64_t b) const { return a && b; }
};
struct Either {
  bool operator()(int64_t a, int64_t b) const { return a || b; }
};

} // namespace

std::span<const HandlerEntry> known_handlers() {
  static constexpr HandlerEntry table[] = {
      {"And", compare<Both>, "axis@-6 broadcast@-6"},
      {"Equal", compare<std::equal_to<>>, "axis@-6 broadcast@-6"},
      {"Greater", compare<std::greater<>>, "axis@-6 broadcast@-6"},
      {"GreaterOrEqual", compare<std::greater_equal<>>},
      {"Less", compare<std::less<>>, "axis@-6 broadcast@-6"},
      {"LessOrEqual", compare<std::less_equal<>>},
      {"Mod", mod, "fmod"},
      {"Not", negate},
      {"Or", compare<Either>, "axis@-6 broadcast@-6"},
      {"Range", range},
      {"Where", where},
  };
  return table;
}

} // namespace lathe::core::onnx
