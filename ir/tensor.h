// Element types, shapes, and tensors: dense row-major data, shared and immutable once built.
#pragma once

#include "ir/error.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lathe::core {

// f16 (IEEE 754 binary16), bf16 and f64 are how tensors lie outside: a graph computes floats in
// f32, and only casts read or write the others.
enum class DType : uint8_t { f32, i64, i32, boolean, f16, bf16, f64 };
inline constexpr DType all_dtypes[] = {DType::f32, DType::i64,  DType::i32, DType::boolean,
                                       DType::f16, DType::bf16, DType::f64};

size_t size_of(DType dtype);             // bytes per element
std::string_view to_string(DType dtype); // "f32", "i64", "i32", "bool", "f16", "bf16", "f64"
bool is_float(DType dtype);              // of any width
std::optional<DType> find_dtype(std::string_view name);

using Shape = std::vector<int64_t>; // outermost first; {} is a scalar

// The number of elements; `limit` if a dimension is negative or the product overflows.
int64_t element_count(const Shape &shape);
Result<int64_t> checked_element_count(const Shape &shape);
std::string to_string(const Shape &shape); // "1x3x224x224", "scalar"

// Row-major strides in elements.
std::vector<int64_t> row_major_strides(const Shape &shape);

// A tensor owns its bytes, or keeps alive whoever does (a mapped file). Copies share.
class Tensor {
public:
  Tensor() = default;
  // Uninitialised.
  Tensor(DType dtype, Shape shape);
  // Bytes that `owner` keeps alive; `data` is aligned for the type, except in constants, which may
  // lie anywhere in a file.
  Tensor(DType dtype, Shape shape, std::shared_ptr<const void> owner, const std::byte *data);

  static Tensor splat(float value, Shape shape);
  static Tensor of(std::vector<float> values, Shape shape);
  static Tensor of(std::initializer_list<float> values, Shape shape) {
    return of(std::vector<float>(values), std::move(shape));
  }
  static Tensor of(std::vector<int64_t> values, Shape shape);

  bool defined() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape &shape() const { return shape_; }
  int64_t size() const { return size_; } // elements
  size_t bytes() const { return static_cast<size_t>(size_) * size_of(dtype_); }

  bool aligned() const { return reinterpret_cast<uintptr_t>(data_) % size_of(dtype_) == 0; }
  const std::byte *raw() const { return data_; }
  std::byte *raw_mutable(); // only for a tensor that owns its bytes alone (asserted)
  template <typename T> std::span<const T> as() const {
    return {reinterpret_cast<const T *>(data_), static_cast<size_t>(size_)};
  }
  template <typename T> std::span<T> as_mutable() {
    return {reinterpret_cast<T *>(raw_mutable()), static_cast<size_t>(size_)};
  }
  std::span<const float> f32() const { return as<float>(); }
  std::span<float> f32_mutable() { return as_mutable<float>(); }

  // Whatever else is to live as long as the bytes do.
  void keep(std::shared_ptr<const void> other);

  // The same bytes under another shape of equal element count.
  Tensor reshaped(Shape shape) const;

private:
  DType dtype_ = DType::f32;
  Shape shape_;
  int64_t size_ = 0;
  std::shared_ptr<const void> owner_;
  const std::byte *data_ = nullptr;
  bool owned_ = false;
};

// The same tensor, aligned and in memory that nobody else changes (see ir/system/mapping.h):
// itself, or a copy. Errors: as copy_bytes.
Result<Tensor> settled(const Tensor &tensor);

// Numbers of any type as f32; f32 itself is shared. To the nearest, halves to even.
Tensor to_f32(const Tensor &tensor);
// Floats, or whole numbers, as floats of another width.
Tensor to_floats(const Tensor &tensor, DType width);
// IEEE 754 binary16 and bfloat16, by their bits.
float from_f16(uint16_t bits);
float from_bf16(uint16_t bits);

} // namespace lathe::core
