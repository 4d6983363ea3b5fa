// The evaluator's ops that only move elements, of any type.
#include "ir/evaluate_ops.h"
#include "ir/strided.h"

#include <algorithm>
#include <cstring>

namespace lathe::core {
namespace {

// A tensor's elements seen through an offset and strides.
struct View {
  int64_t offset;
  std::vector<int64_t> strides;
};
View whole(const Tensor &tensor) { return {0, row_major_strides(tensor.shape())}; }

void copy(const Tensor &from, const View &source, Tensor &to, const View &target,
          const Shape &shape) {
  const size_t bytes = size_of(from.dtype());
  // In signed arithmetic: a stride may be negative.
  auto at = [bytes](int64_t element) { return element * static_cast<ptrdiff_t>(bytes); };
  const std::byte *read = from.raw() + at(source.offset);
  std::byte *write = to.raw_mutable() + at(target.offset);
  for_each_row<2>(shape, {source.strides, target.strides},
                  [&](const auto &offset, int64_t length, const auto &step) {
                    if (step[0] == 1 && step[1] == 1) {
                      std::memcpy(write + at(offset[1]), read + at(offset[0]),
                                  static_cast<size_t>(length) * bytes);
                      return;
                    }
                    for (int64_t i = 0; i < length; ++i)
                      std::memcpy(write + at(offset[1] + i * step[1]),
                                  read + at(offset[0] + i * step[0]), bytes);
                  });
}

void fill(Tensor &tensor, float value) {
  switch (tensor.dtype()) {
  case DType::f32:
    std::ranges::fill(tensor.f32_mutable(), value);
    break;
  case DType::i64:
    std::ranges::fill(tensor.as_mutable<int64_t>(), saturate<int64_t>(value));
    break;
  case DType::i32:
    std::ranges::fill(tensor.as_mutable<int32_t>(), saturate<int32_t>(value));
    break;
  case DType::boolean:
    std::ranges::fill(tensor.as_mutable<uint8_t>(), uint8_t{value != 0});
    break;
  default: // only casts read these
    break;
  }
}

} // namespace

Tensors compute(const Concat &op, const Operands &a) {
  Tensor y = a.result();
  View part = whole(y);
  for (const Tensor &x : a.in) {
    const Axis axis(x.shape(), op.axis);
    copy(x, whole(x), y, part, x.shape());
    part.offset += axis.extent * part.strides[axis.position];
  }
  return {y};
}

Tensors compute(const Slice &op, const Operands &a) {
  Tensor y = a.result();
  View view = whole(a.x());
  for (size_t i = 0; i < op.axes.size(); ++i) {
    const Axis axis(a.shape(), op.axes[i]);
    const SliceRange range = slice_range(axis.extent, op.begin[i], op.end[i], op.step[i]);
    int64_t &stride = view.strides[axis.position];
    view.offset += range.first * stride;
    // At most one element: its stride is never used, and a huge step must not overflow.
    stride = std::abs(range.step) < axis.extent ? stride * range.step : 0;
  }
  copy(a.x(), view, y, whole(y), y.shape());
  return {y};
}

Tensors compute(const Split &op, const Operands &a) {
  Tensors parts;
  View view = whole(a.x());
  for (const Type &type : a.types) {
    Tensor &part = parts.emplace_back(type.dtype, type.shape);
    copy(a.x(), view, part, whole(part), type.shape);
    const Axis axis(type.shape, op.axis);
    view.offset += axis.extent * view.strides[axis.position];
  }
  return parts;
}

Tensors compute(const Pad &op, const Operands &a) {
  Tensor y = a.result();
  fill(y, op.value);
  View inside = whole(y);
  for (size_t d = 0; d < op.before.size(); ++d) inside.offset += op.before[d] * inside.strides[d];
  copy(a.x(), whole(a.x()), y, inside, a.shape());
  return {y};
}

Tensors compute(const Reshape &, const Operands &a) { return {a.x().reshaped(a.types[0].shape)}; }
Tensors compute(const Flatten &, const Operands &a) { return {a.x().reshaped(a.types[0].shape)}; }

Tensors compute(const Transpose &op, const Operands &a) {
  Tensor y = a.result();
  const View x = whole(a.x());
  View permuted = x;
  for (size_t d = 0; d < op.perm.size(); ++d)
    permuted.strides[d] = x.strides[static_cast<size_t>(op.perm[d])];
  copy(a.x(), permuted, y, whole(y), y.shape());
  return {y};
}

Tensors compute(const Expand &, const Operands &a) {
  Tensor y = a.result();
  copy(a.x(), {0, broadcast_strides(a.shape(), y.shape())}, y, whole(y), y.shape());
  return {y};
}

Tensors compute(const Gather &op, const Operands &a) {
  Tensor y = a.result();
  if (y.size() == 0) return {y};
  const Axis axis(a.shape(), op.axis);
  const Tensor &indices = a.in[1];
  const size_t row = static_cast<size_t>(axis.behind) * size_of(y.dtype());
  std::byte *to = y.raw_mutable();
  for (int64_t n = 0; n < axis.before; ++n)
    for (size_t i = 0; i < static_cast<size_t>(indices.size()); ++i) {
      int64_t index =
          indices.dtype() == DType::i64 ? indices.as<int64_t>()[i] : indices.as<int32_t>()[i];
      if (index < 0) index += axis.extent;
      index = std::clamp<int64_t>(index, 0, axis.extent - 1);
      std::memcpy(to, a.x().raw() + static_cast<size_t>(n * axis.extent + index) * row, row);
      to += row;
    }
  return {y};
}

} // namespace lathe::core
