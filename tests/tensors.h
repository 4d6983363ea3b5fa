// Small tensors in tests: made, computed, and looked into.
#pragma once

#include "ir/evaluate.h"

#include <cstring>
#include <doctest/doctest.h>
#include <numeric>

namespace lathe::core {

inline std::vector<Tensor> all(const Op &op, const std::vector<Tensor> &inputs) {
  auto results = evaluate(op, inputs);
  REQUIRE_MESSAGE(results, to_string(results.error()));
  return *results;
}
inline Tensor one(const Op &op, const std::vector<Tensor> &inputs) {
  auto results = all(op, inputs);
  REQUIRE(results.size() == 1);
  return results[0];
}

inline Tensor floats(Shape shape, std::vector<float> values) {
  return Tensor::of(std::move(values), std::move(shape));
}
// 1, 2, 3, ...
inline Tensor counting(Shape shape) {
  Tensor tensor(DType::f32, std::move(shape));
  std::iota(tensor.f32_mutable().begin(), tensor.f32_mutable().end(), 1.0f);
  return tensor;
}

template <typename T = float> std::vector<T> list(const Tensor &tensor) {
  return {tensor.as<T>().begin(), tensor.as<T>().end()};
}
inline bool same_bits(const Tensor &a, const Tensor &b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

} // namespace lathe::core
