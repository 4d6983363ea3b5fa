// Elements of known tensors by their types, for ops that are computed while reading. Private to
// frontend/onnx.
#pragma once

#include "frontend/onnx/import.h"

namespace lathe::core::onnx {

// Calls `f` with the tensor's elements, as a span of float, int64_t, int32_t or uint8_t (bool).
template <typename F> auto with_elements(const Tensor &tensor, F f) {
  switch (tensor.dtype()) {
  case DType::i64:
    return f(tensor.as<int64_t>());
  case DType::i32:
    return f(tensor.as<int32_t>());
  case DType::boolean:
    return f(tensor.as<uint8_t>());
  default: // graphs hold no other floats than f32
    break;
  }
  return f(tensor.as<float>());
}

// Inputs whose values are known, broadcast against each other. Throws for those that are not known,
// or of more elements than are computed while reading.
struct KnownTogether {
  Shape shape;
  std::vector<Tensor> values;
  size_t count() const { return size_t(element_count(shape)); }
};
KnownTogether known_together(Call &c, const Values &inputs);

// Whole numbers of any type. Throws for floats.
std::vector<int64_t> integers_of(Call &c, const Tensor &tensor);

// y[i] = element indices[i] of `a`, or, beyond its last, of `b`, both seen as one row of elements
// after the other: whatever is chosen by what is known. `b` may be none.
ValueId pick(Call &c, ValueId a, std::optional<ValueId> b, std::vector<int64_t> indices,
             Shape shape);
// condition[i] ? x[i] : y[i], all of one shape, for a condition that is known.
ValueId choose(Call &c, const Tensor &condition, ValueId x, ValueId y);

} // namespace lathe::core::onnx
