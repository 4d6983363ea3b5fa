// Constants that differ between channels only, as vectors: what biases and scales may be.
#pragma once

#include "ir/graph.h"

namespace lathe::core {

// The constant as a vector over the channels (dimension 1) of `result`, if it varies along these
// only; else null.
inline ConstantRef channel_vector(const ConstantRef &constant, const Shape &result) {
  constexpr size_t axis = 1;
  const Shape &shape = constant->type.shape;
  int64_t channels = result[axis];
  if (channels == 0 || shape.size() > result.size() || constant->type.dtype != DType::f32)
    return nullptr;
  bool along_channels = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    bool is_axis = result.size() - shape.size() + i == axis;
    if (shape[i] != 1 && !is_axis) return nullptr;
    along_channels |= is_axis && shape[i] == channels;
  }
  if (along_channels) return computed_constant(Reshape{{channels}}, {constant}).value();
  ConstantRef scalar = computed_constant(Reshape{{1}}, {constant}).value();
  return computed_constant(Binary{BinaryKind::add}, {splat_constant(0, {channels}), scalar})
      .value();
}

} // namespace lathe::core
