// Floats of one width as those of another.
#include "ir/tensor.h"

#include <Eigen/Core>
#include <algorithm>

namespace lathe::core {

float from_f16(uint16_t bits) {
  return static_cast<float>(Eigen::numext::bit_cast<Eigen::half>(bits));
}
float from_bf16(uint16_t bits) {
  return static_cast<float>(Eigen::numext::bit_cast<Eigen::bfloat16>(bits));
}

template <typename From, typename To> static Tensor convert(const Tensor &tensor, DType dtype) {
  Tensor result(dtype, tensor.shape());
  std::ranges::transform(tensor.as<From>(), result.as_mutable<To>().begin(),
                         [](From x) { return static_cast<To>(x); });
  return result;
}

Tensor to_f32(const Tensor &tensor) {
  switch (tensor.dtype()) {
  case DType::f32:
    return tensor;
  case DType::i64:
    return convert<int64_t, float>(tensor, DType::f32);
  case DType::i32:
    return convert<int32_t, float>(tensor, DType::f32);
  case DType::boolean:
    return convert<uint8_t, float>(tensor, DType::f32);
  case DType::f16:
    return convert<Eigen::half, float>(tensor, DType::f32);
  case DType::bf16:
    return convert<Eigen::bfloat16, float>(tensor, DType::f32);
  case DType::f64:
    return convert<double, float>(tensor, DType::f32);
  }
  return tensor;
}

Tensor to_floats(const Tensor &tensor, DType width) {
  if (tensor.dtype() == width) return tensor;
  const Tensor x = to_f32(tensor);
  switch (width) {
  case DType::f16:
    return convert<float, Eigen::half>(x, width);
  case DType::bf16:
    return convert<float, Eigen::bfloat16>(x, width);
  case DType::f64:
    return convert<float, double>(x, width);
  default:
    return x;
  }
}

} // namespace lathe::core
