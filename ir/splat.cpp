// Constants of one number stay that under most ops: then nothing is computed for every element, or
// held. What a small file can make large is mostly of this kind.
#include "ir/evaluate.h"
#include "ir/op_facts.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lathe::core {
namespace {

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

// What each op makes of operands whose elements are all one number; nothing, where that is not one
// number again, or may not be.
struct SplatRule {
  std::span<const ConstantRef> in;
  const Shape &result;

  float first() const { return *in[0]->splat; }
  bool all_splats() const {
    return std::ranges::all_of(in, [](const ConstantRef &c) { return c->splat.has_value(); });
  }
  std::optional<float> by_element(const Op &op) const {
    if (!all_splats()) return std::nullopt;
    std::vector<Tensor> numbers;
    for (const ConstantRef &c : in) numbers.push_back(Tensor::splat(*c->splat, {1}));
    const auto made = evaluate(op, numbers);
    return made ? std::optional((*made)[0].f32()[0]) : std::nullopt;
  }

  std::optional<float> operator()(const Unary &op) const { return by_element(op); }
  std::optional<float> operator()(const Binary &op) const { return by_element(op); }
  std::optional<float> operator()(const Concat &) const {
    if (!all_splats()) return std::nullopt;
    const bool equal = std::ranges::all_of(
        in, [&](const ConstantRef &c) { return same_bits(*c->splat, first()); });
    return equal ? std::optional(first()) : std::nullopt;
  }
  std::optional<float> operator()(const Pad &op) const {
    return same_bits(op.value, first()) ? std::optional(first()) : std::nullopt;
  }
  std::optional<float> operator()(const Reduce &op) const {
    const int64_t before = element_count(in[0]->type.shape), after = element_count(result);
    if (!std::isfinite(first()) || before == 0 || op.kind == ReduceKind::prod) return std::nullopt;
    if (op.kind == ReduceKind::max || op.kind == ReduceKind::min) return first();
    if (std::signbit(first()) && first() == 0) return std::nullopt; // a sum begins with 0, or not
    if (op.kind == ReduceKind::mean) return first();
    return float(double{first()} * double(before / after));
  }
  template <typename Other> std::optional<float> operator()(const Other &) const {
    constexpr Effect effect = facts_of<Other>().effect;
    const bool of_first = effect == Effect::rearranges || effect == Effect::looks_up;
    return of_first ? std::optional(first()) : std::nullopt;
  }
};

} // namespace

std::optional<float> splat_result(const Op &op, std::span<const ConstantRef> inputs,
                                  const Type &result) {
  if (inputs.empty() || !inputs[0]->splat || result.dtype != DType::f32) return std::nullopt;
  if (element_count(result.shape) == 0) return std::nullopt;
  return std::visit(SplatRule{inputs, result.shape}, op);
}

} // namespace lathe::core
