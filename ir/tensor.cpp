// Element types, shapes, and tensors that own their bytes or share a file's.
#include "ir/tensor.h"

#include "ir/system/mapping.h"
#include "ir/system/memory.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <new>
#include <utility>

namespace lathe::core {

size_t size_of(DType dtype) {
  switch (dtype) {
  case DType::f32:
  case DType::i32:
    return 4;
  case DType::i64:
  case DType::f64:
    return 8;
  case DType::f16:
  case DType::bf16:
    return 2;
  case DType::boolean:
    return 1;
  }
  return 1;
}

std::string_view to_string(DType dtype) {
  switch (dtype) {
  case DType::f32:
    return "f32";
  case DType::i64:
    return "i64";
  case DType::i32:
    return "i32";
  case DType::boolean:
    return "bool";
  case DType::f16:
    return "f16";
  case DType::bf16:
    return "bf16";
  case DType::f64:
    return "f64";
  }
  return "?";
}

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64;
}

std::optional<DType> find_dtype(std::string_view name) {
  for (DType dtype : all_dtypes)
    if (to_string(dtype) == name) return dtype;
  return std::nullopt;
}

// Beyond this a tensor is refused: no machine of ours holds it, and byte counts stay far from
// overflow.
static constexpr int64_t most_elements = int64_t{1} << 40;

Result<int64_t> checked_element_count(const Shape &shape) {
  int64_t count = 1;
  bool empty = false;
  for (int64_t d : shape) {
    if (d < 0)
      return fail(Error{.code = ErrorCode::invalid,
                        .message = "a dimension is negative",
                        .expected = "0 or more",
                        .found = to_string(shape)});
    if (d == 0)
      empty = true;
    else if (count > most_elements / d)
      return fail(Error{.code = ErrorCode::limit,
                        .message = "a tensor is too large",
                        .expected = fmt::format("at most {} elements", most_elements),
                        .found = to_string(shape)});
    else
      count *= d;
  }
  return empty ? 0 : count;
}

int64_t element_count(const Shape &shape) { return checked_element_count(shape).value_or(-1); }

std::string to_string(const Shape &shape) {
  return shape.empty() ? "scalar" : fmt::format("{}", fmt::join(shape, "x"));
}

std::vector<int64_t> row_major_strides(const Shape &shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;)
    strides[i - 1] = strides[i] * std::max<int64_t>(1, shape[i]);
  return strides;
}

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), size_(element_count(shape_)), owned_(true) {
  assert(size_ >= 0);
  Memory memory = allocate(bytes());
  if (!memory) throw std::bad_alloc();
  data_ = memory.get();
  owner_ = std::shared_ptr<std::byte>(memory.release(), memory.get_deleter());
}

Tensor::Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const std::byte *data)
    : dtype_(dtype), shape_(std::move(shape)), size_(element_count(shape_)),
      owner_(std::move(owner)), data_(data) {
  assert(size_ >= 0);
}

std::byte *Tensor::raw_mutable() {
  assert(owned_);
  return const_cast<std::byte *>(data_);
}

Tensor Tensor::splat(float value, Shape shape) {
  Tensor tensor(DType::f32, std::move(shape));
  std::ranges::fill(tensor.f32_mutable(), value);
  return tensor;
}

template <typename T>
static Tensor copy_of(DType dtype, const std::vector<T> &values, Shape shape) {
  Tensor tensor(dtype, std::move(shape));
  assert(static_cast<size_t>(tensor.size()) == values.size());
  if (!values.empty()) std::memcpy(tensor.raw_mutable(), values.data(), tensor.bytes());
  return tensor;
}
Tensor Tensor::of(std::vector<float> values, Shape shape) {
  return copy_of(DType::f32, values, std::move(shape));
}
Tensor Tensor::of(std::vector<int64_t> values, Shape shape) {
  return copy_of(DType::i64, values, std::move(shape));
}

void Tensor::keep(std::shared_ptr<const void> other) {
  if (!other) return;
  using Both = std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>;
  owner_ = std::make_shared<Both>(std::move(owner_), std::move(other));
}

Tensor Tensor::reshaped(Shape shape) const {
  Tensor result = *this;
  result.shape_ = std::move(shape);
  assert(element_count(result.shape_) == size_);
  return result;
}

Result<Tensor> settled(const Tensor &tensor) {
  const std::span<const std::byte> bytes(tensor.raw(), tensor.bytes());
  if (tensor.aligned() && !is_mapped(bytes)) return tensor;
  Tensor copy(tensor.dtype(), tensor.shape());
  LATHE_CHECK(copy_bytes(bytes, copy.raw_mutable()));
  return copy;
}

} // namespace lathe::core
